import csv
import dataclasses
import json
import math

import pytest
import torch

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.evaluation.explain import Explain, as_rows, changes, report_variants
from depth_lightning.metrics import ERRORS, DepthMetrics, Protocol, directions
from depth_lightning.metrics.protocol import Alignment
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training import DepthModule


class Fixed(torch.nn.Module):
    """A network of any output; the predictions are made up by the tests."""

    max_depth = 10.0

    def __init__(self, output):
        super().__init__()
        self.output = output


def _batches(count, height, width, kind=DepthKind.METRES, farthest=9.0):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        target = 0.5 + (farthest - 0.5) * torch.rand(1, height, width, generator=generator)
        prediction = target * (0.6 + 0.6 * torch.rand(1, height, width, generator=generator))
        mask = torch.rand(1, height, width, generator=generator) < 0.5
        unknown = torch.full((1, 4), torch.nan)
        yield DepthBatch(torch.empty(1, 3, 1, 1), target, mask, unknown, [kind], [""], [""]), prediction


def _explained(protocol, batches, output="metric", errors=ERRORS):
    metrics = DepthMetrics(protocol, errors)
    module, explain = DepthModule(Fixed(output), metrics), Explain(metrics, output == "relative")
    for batch, prediction in batches:
        explain.on_validation_batch_end(None, module, prediction, batch, 0)
    return explain.variants()


def test_every_variant_scores_as_its_protocol_alone():
    protocol = Protocol(max_depth=80, crop="kitti_garg", clip=True)
    batches = list(_batches(2, 375, 1242, farthest=79))
    variants = _explained(protocol, batches)
    assert variants[0].protocol == protocol
    assert len(variants) == 6 * 5 * 3 == len({variant.protocol for variant in variants})
    module = DepthModule(Fixed("metric"))
    for variant in variants[::17]:
        metrics = DepthMetrics(variant.protocol)
        for batch, prediction in batches:
            module.score_depth(metrics, batch, prediction)
        expected = {name: value.item() for name, value in metrics.compute().items() if name in variant.metrics}
        assert variant.metrics == expected and list(expected) == ["abs_rel", "rmse", "delta1"]
        assert dataclasses.replace(variant.protocol, crop="none", alignment="none", max_depth=80) == Protocol(
            max_depth=80, clip=True
        )


@pytest.mark.parametrize("size, crops", [((480, 640), {"none", "nyu_eigen"}), ((60, 80), {"none"})])
def test_crops_and_ranges_that_apply_to_the_data(size, crops):
    variants = _explained(Protocol(), _batches(2, *size))
    assert {variant.protocol.crop for variant in variants} == crops
    assert {variant.protocol.max_depth for variant in variants} == {10.0}  # nothing lies beyond
    variants = _explained(Protocol(), _batches(2, 60, 80, farthest=30.0))
    assert {variant.protocol.max_depth for variant in variants} == {10.0, 50.0, 80.0}


def test_crops_that_fit_some_images_only_are_left_out():
    variants = _explained(Protocol(), [*_batches(1, 480, 640), *_batches(1, 60, 80)])
    assert {variant.protocol.crop for variant in variants} == {"none"}
    assert {sum(variant.counts) for variant in variants} == {2}


def test_relative_networks_are_aligned_in_disparity_alone():
    protocol = Protocol(alignment="scale_shift_disparity")
    batches = [(batch, 3 / prediction + 1) for batch, prediction in _batches(1, 480, 640)]
    variants = _explained(protocol, batches, "relative")
    assert {variant.protocol.alignment for variant in variants} == {"scale_shift_disparity"}
    assert [changes(variant.protocol, protocol) for variant in variants] == [[], ["crop"]]


def test_truth_that_is_not_depth_has_nothing_to_explain(tmp_path, caplog):
    variants = _explained(Protocol(), _batches(2, 60, 80, DepthKind.DISPARITY))
    assert variants == []
    report_variants(variants, {}, tmp_path)
    assert "no image has depth" in caplog.text
    assert not list(tmp_path.iterdir())


def test_truth_up_to_scale_is_not_scored_without_an_alignment(tmp_path, capsys):
    variants = _explained(Protocol(), _batches(2, 60, 80, DepthKind.UP_TO_SCALE))
    by_alignment = {variant.protocol.alignment: variant for variant in variants if variant.protocol.max_depth == 10}
    assert by_alignment["none"].counts == (0, 0, 2) and math.isnan(by_alignment["none"].metrics["abs_rel"])
    assert by_alignment["scale_least_squares"].counts == (2, 0, 0)
    report_variants(variants, directions(ERRORS), tmp_path)
    assert "–" in capsys.readouterr().out


@pytest.mark.parametrize("more", [True, False])
def test_a_metric_of_ones_own_changes_as_its_direction_says(more):
    def mine(prediction, target, mask):
        return mask.sum(dim=(1, 2)) / mask[0].numel()

    mine.higher_is_better = more
    errors = {**ERRORS, "mine": mine}
    variants = _explained(Protocol(), _batches(2, 60, 80, farthest=30.0), errors=errors)
    for row in (rows := as_rows(variants, directions(errors))):
        change = row["mine"] - rows[0]["mine"] if more else row["mine"] / rows[0]["mine"] - 1
        assert row["mine_change"] == pytest.approx(100 * change, abs=1e-9)
    assert {row["mine"] for row in rows} > {rows[0]["mine"]}  # more pixels count where the range is larger


def test_explain_from_the_command(trained, compose_config, tmp_path, capsys):
    folder, best = trained
    typed = ["explain=true", "panels=0"]
    evaluate(compose_config("evaluate", [f"checkpoint={folder}/checkpoints/best.ckpt", *typed], tmp_path), typed)
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "metrics.json").read_text())
    rows = content["explain"]
    assert rows[0]["abs_rel"] == content["metrics"]["abs_rel"] == pytest.approx(best, rel=1e-6)
    assert rows[0]["protocol"] == content["protocol"]["hash"]
    assert {row["alignment"] for row in rows} == set(Alignment.__args__) and {row["crop"] for row in rows} == {"none"}
    for row in rows:
        assert row["abs_rel_change"] == pytest.approx(100 * (row["abs_rel"] / rows[0]["abs_rel"] - 1), abs=1e-9)
        assert row["delta1_change"] == pytest.approx(100 * (row["delta1"] - rows[0]["delta1"]), abs=1e-9)
        assert row["protocol"] in printed and f"{row['abs_rel']:.4f}" in printed
    with (tmp_path / "explain.csv").open() as file:
        assert [line["protocol"] for line in csv.DictReader(file)] == [row["protocol"] for row in rows]
    assert "size of these images: crop kitti_benchmark" in printed


def test_the_legend_names_the_lines_that_there_are(tmp_path, capsys):
    protocol = Protocol(max_depth=10, alignment="scale_shift_disparity")
    variants = _explained(protocol, _batches(2, 60, 80), output="relative")
    report_variants(variants[:1], directions(ERRORS), tmp_path)
    assert "\nThe chosen protocol.\n" in capsys.readouterr().out
    report_variants(_explained(protocol, _batches(2, 480, 640), "relative"), directions(ERRORS), tmp_path)
    shown = capsys.readouterr().out
    assert "\nThe chosen protocol, then variants with one change (· means unchanged).\n" in shown
