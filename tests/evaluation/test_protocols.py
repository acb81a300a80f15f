"""Which networks go with which protocols, and what the table says of images that could not be scored."""

import json
from types import SimpleNamespace

import pytest
import torch

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.train import train
from depth_lightning.data.bad_samples import Samples
from depth_lightning.evaluation.report import report
from depth_lightning.evaluation.summary import summarise
from depth_lightning.metrics import DepthMetrics, ImageCounts, Protocol
from depth_lightning.metrics.per_image import ValidationCounts
from depth_lightning.models import DepthAnythingV2, save_weights
from depth_lightning.reporting.result import EvaluationResult

NONE = ImageCounts(0, 0, 0)


def _report(folder, protocol, depth, affine=NONE):
    result = EvaluationResult({"abs_rel": 0.1}, {"abs_rel": False}, ValidationCounts(depth, affine))
    data = SimpleNamespace(val_data=SimpleNamespace(dataset=Samples([])), eval_split="val")
    report(folder, "x", summarise({}, result, DepthMetrics(protocol), data, baseline=False), result)


def test_images_that_were_not_scored_are_counted_below_the_table(tmp_path, capsys):
    protocol = Protocol(alignment="scale_shift_disparity")
    _report(tmp_path, protocol, ImageCounts(3, 1, 2), ImageCounts(4, 0, 1))
    printed = capsys.readouterr().out
    assert f"3 images. Protocol {protocol.hash}: {protocol}." in printed
    assert "NOT in these averages: 1 image without a valid pixel" in printed
    assert "2 images whose pixels do not determine the alignment" in printed
    assert "1 image with truth up to scale and shift that is the same everywhere" in printed
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["images"] == 3 and content["images_by_truth"]["depth"]["not_aligned"] == 2
    assert content["protocol"] == {**protocol.to_dict(), "hash": protocol.hash}
    _report(tmp_path, Protocol(), ImageCounts(3, 0, 0))
    assert "NOT" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "protocol, counts, match",
    [
        (Protocol(), ImageCounts(0, 0, 5), "None of the 5 .* 5 images with truth up to scale.*protocol=median_scaled"),
        (Protocol(alignment="scale_shift_depth"), ImageCounts(0, 0, 5), "as with a constant prediction"),
        (Protocol(), ImageCounts(0, 5, 0), "data's unit metres"),
    ],
)
def test_nothing_to_score_is_an_error_that_says_why(protocol, counts, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        _report(tmp_path, protocol, counts)


def _relative_weights(folder):
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny", output="relative")
    for parameter in network.head.parameters():  # random weights alone give disparity 0 everywhere
        parameter.data.abs_()
    save_weights(network, folder / "relative.pth")
    return [f"model.weights={folder}/relative.pth", "model.output=relative"]


def test_relative_weights_are_scored_zero_shot_and_refused_as_metres(small, compose_config, tmp_path):
    typed = _relative_weights(tmp_path)
    data = [override for override in small if override.startswith("data.")]
    overrides = ["model=tiny", "data=rooms", "trainer=cpu", "panels=0", *data, *typed]
    with pytest.raises(ValueError, match=r"model\.output=relative .* protocol=affine_disparity"):
        evaluate(compose_config("evaluate", overrides, tmp_path), typed)
    score = evaluate(compose_config("evaluate", [*overrides, "protocol=affine_disparity"], tmp_path), typed)
    assert score.counts.depth == (5, 0, 0)
    assert 0 < score.metrics["abs_rel"] < 1
    with pytest.raises(ValueError, match="protocol=affine_disparity"):
        train(compose_config("train", [*small, "model.output=relative"], tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_metric_checkpoint_under_a_relative_protocol(trained, compose_config, tmp_path):
    folder, best = trained
    typed = ["protocol=affine_disparity", "panels=0"]
    cfg = compose_config("evaluate", [f"checkpoint={folder}/checkpoints/best.ckpt", *typed], tmp_path)
    assert evaluate(cfg, typed).metrics["abs_rel"] < best
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["protocol"]["alignment"] == "scale_shift_disparity"
    assert content["data"].startswith("RenderedRooms ")


def test_the_runs_config_holds_the_hash(trained):
    folder, _ = trained
    hashed = json.loads((folder / "metrics.json").read_text())["protocol"]["hash"]
    assert f"protocol_hash: {hashed}\n" in (folder / "config.yaml").read_text()


def test_a_protocol_of_your_own(trained, compose_config, tmp_path):
    """What a user writes into a yaml of their own: the fields alone, over any option."""
    folder, _ = trained
    typed = ["protocol=affine_depth", "protocol.max_depth=5", "protocol.flip_average=true", "protocol.reduction=pixel"]
    cfg = compose_config("evaluate", [f"checkpoint={folder}/checkpoints/best.ckpt", "panels=0", *typed], tmp_path)
    assert "silog" not in evaluate(cfg, typed).metrics
    expected = Protocol(
        max_depth=5.0, alignment="scale_shift_depth", strict=False, clip=True, flip_average=True, reduction="pixel"
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["protocol"]["hash"] == expected.hash
