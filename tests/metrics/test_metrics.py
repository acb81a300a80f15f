import doctest
import json

import numpy as np
import pytest
import torch
import torch.multiprocessing

from depth_lightning.metrics import (
    ERRORS,
    DepthMetrics,
    Protocol,
    align,
    best_constant,
    crop_mask,
    depth_metrics,
    errors,
)

GOLDEN_NAMES = {"d1": "delta1", "d2": "delta2", "d3": "delta3"}
RANGES = {"indoor": Protocol(1e-3, 10.0), "outdoor": Protocol(1e-3, 80.0)}


@pytest.fixture(params=["indoor", "outdoor"])
def scene(request, golden):
    arrays = np.load(golden / f"metrics_{request.param}.npz")
    expected = json.loads((golden / f"metrics_{request.param}.json").read_text())
    tensors = {name: torch.from_numpy(arrays[name]) for name in arrays}
    tensors["mask"] &= tensors["target"] > 0
    return tensors, expected, RANGES[request.param].max_depth


def test_errors_equal_the_reference(scene):
    tensors, expected, _ = scene
    for image, row in enumerate(expected["metric"]):
        for name, value in row.items():
            function = ERRORS[GOLDEN_NAMES.get(name, name)]
            found = function(tensors["prediction"], tensors["target"], tensors["mask"])[image]
            assert found.item() == pytest.approx(value, rel=1e-4), name


def test_alignments_equal_the_reference(scene):
    tensors, expected, max_depth = scene
    for alignment in expected["aligned"][0]:
        disparity = alignment == "scale_shift_disparity"
        prediction = tensors["disparity" if disparity else "prediction"]
        for image, rows in enumerate(expected["aligned"]):
            one = slice(image, image + 1)
            metrics = DepthMetrics(Protocol(1e-3, max_depth, alignment=alignment))
            metrics.update(prediction[one], tensors["target"][one], tensors["mask"][one])
            found = {name: value.item() for name, value in metrics.compute().items()}
            row = dict(rows[alignment])
            coefficients = row.pop("coefficients", None)
            assert {name: found[name] for name in row} == pytest.approx(row, rel=1e-4), alignment
            if coefficients:
                aligned = align(prediction[one], tensors["target"][one], tensors["mask"][one], alignment)
                assert [aligned.scale.item(), aligned.shift.item()] == pytest.approx(coefficients, rel=1e-4)


def _numpy_errors(p, t):
    p, t = p.astype(np.float64), t.astype(np.float64)
    d = np.log(t) - np.log(p)
    ratio = np.maximum(p / t, t / p)
    return {
        "abs_rel": np.mean(np.abs(p - t) / t),
        "sq_rel": np.mean((p - t) ** 2 / t),
        "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "rmse_log": np.sqrt(np.mean(d**2)),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(t))),
        "mae": np.mean(np.abs(p - t)),
        "silog": np.sqrt(np.mean(d**2) - 0.5 * np.mean(d) ** 2),
        "silog_100": 100 * np.std(d),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
    }


def _maps(images, seed=0, height=24, width=32):
    generator = torch.Generator().manual_seed(seed)
    target = 0.5 + 9 * torch.rand(images, height, width, generator=generator)
    prediction = target * (0.7 + 0.6 * torch.rand(images, height, width, generator=generator))
    mask = torch.rand(images, height, width, generator=generator) < torch.linspace(0.2, 1, images)[:, None, None]
    return prediction, target, mask


def test_metrics_equal_numpy_and_are_per_image_averages():
    prediction, target, mask = _maps(5)
    metrics = DepthMetrics(Protocol(1e-3, 8.0))
    metrics.update(prediction, target, mask)
    rows = []
    for p, t, m in zip(prediction.numpy(), target.numpy(), mask.numpy(), strict=True):
        valid = m & (t > 1e-3) & (t < 8.0)
        rows.append(_numpy_errors(p[valid], t[valid]))
    expected = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(expected, rel=1e-5)


def test_batches_do_not_move_the_result():
    prediction, target, mask = _maps(7)
    together, singly = DepthMetrics(Protocol()), DepthMetrics(Protocol())
    together.update(prediction, target, mask)
    for image in range(7):
        singly.update(prediction[image, None], target[image, None], mask[image, None])
    for name, value in together.compute().items():
        assert value.item() == pytest.approx(singly.compute()[name].item(), abs=1e-6)


def test_images_without_valid_pixels_are_counted_not_averaged():
    prediction, target, mask = _maps(3)
    metrics = DepthMetrics(Protocol(alignment="scale_shift_depth"))
    metrics.update(prediction, target, mask)
    expected = metrics.compute()
    empty, single = torch.zeros_like(mask[:1]), torch.zeros_like(mask[:1])
    single[0, 2, 3] = True
    metrics.update(prediction[:1], target[:1], empty)
    metrics.update(prediction[:1], target[:1], single)
    metrics.update(torch.ones_like(prediction[:1]), target[:1], mask[:1])
    assert metrics.compute() == expected
    assert metrics.counts() == (3, 1, 2)


def test_nothing_scored_is_nan_and_counted():
    metrics = DepthMetrics(Protocol())
    metrics.update(*(maps[:1] for maps in _maps(1)[:2]), torch.zeros(1, 24, 32, dtype=torch.bool))
    assert metrics.compute()["abs_rel"].isnan()
    assert metrics.counts() == (0, 1, 0)


def _worker(rank, world_size, images, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    prediction, target, mask = _maps(images)
    metrics = DepthMetrics(Protocol())
    for image in range(rank, images, world_size):
        metrics.update(prediction[image, None], target[image, None], mask[image, None])
    result = {name: value.item() for name, value in metrics.compute().items()}
    counts = metrics.counts()
    if rank == world_size - 1:
        (folder / "result.json").write_text(json.dumps([result, counts]))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world_size, images", [(2, 7), (3, 2)])
def test_metrics_on_many_processes_equal_one(world_size, images, tmp_path):
    """Seven images do not divide by two; of two images, the last of three processes sees none."""
    torch.multiprocessing.spawn(_worker, args=(world_size, images, tmp_path), nprocs=world_size)
    metrics = DepthMetrics(Protocol())
    metrics.update(*_maps(images))
    result, counts = json.loads((tmp_path / "result.json").read_text())
    assert result == pytest.approx({name: value.item() for name, value in metrics.compute().items()}, abs=1e-6)
    assert counts == [images, 0, 0]


@pytest.mark.parametrize("alignment", ["scale_median_of_ratios", "scale_ratio_of_medians", "scale_least_squares"])
def test_scale_alignments_undo_a_scale(alignment):
    _, target, mask = _maps(2)
    aligned = align(0.37 * target, target, mask, alignment)
    assert torch.allclose(aligned.depth[mask], target[mask], rtol=1e-5)


def test_near_singular_fits_are_not_made():
    _, target, mask = _maps(1)
    for nearly in (torch.full_like(target, 3.0), 3.0 + 1e-6 * torch.rand_like(target)):
        assert not align(nearly, target, mask, "scale_shift_depth").determined


def test_zero_prediction_cannot_be_scaled():
    _, target, mask = _maps(1)
    for alignment in ("scale_median_of_ratios", "scale_ratio_of_medians", "scale_least_squares"):
        aligned = align(torch.zeros_like(target), target, mask, alignment)
        assert not aligned.determined
        assert aligned.depth.isfinite().all()


def test_crops():
    eigen = crop_mask("nyu_eigen", 480, 640)
    assert eigen.sum() == 238_560
    assert eigen[45, 41] and eigen[470, 600] and not eigen[44, 41] and not eigen[471, 600]
    garg = crop_mask("kitti_garg", 375, 1242)
    assert garg[153:371, 44:1197].all() and garg.sum() == (371 - 153) * (1197 - 44)
    with pytest.raises(ValueError, match="480×640"):
        crop_mask("nyu_eigen", 375, 1242)


def test_protocol_bounds_and_hash():
    target = torch.tensor([[[0.001, 0.5, 10.0, 10.5]]])
    mask = torch.ones_like(target, dtype=torch.bool)
    assert Protocol(strict=True).valid(target, mask).tolist() == [[[False, True, False, False]]]
    assert Protocol(strict=False).valid(target, mask).tolist() == [[[True, True, True, False]]]
    assert Protocol(clip=True).bound(torch.tensor([-1.0, 20.0])).tolist() == pytest.approx([1e-3, 10.0])
    hashes = {
        Protocol().hash,
        Protocol(clip=True).hash,
        Protocol(max_depth=8).hash,
        Protocol(crop="kitti_garg").hash,
    }
    assert len(hashes) == 4
    assert Protocol().hash == Protocol(crop="none").hash


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"crop": "eigen"}, "crop is one of none, nyu_eigen"),
        ({"alignment": "median"}, "alignment is one of"),
        ({"max_depth": 0}, "max_depth is a number above 0"),
    ],
)
def test_wrong_protocols_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        Protocol(**arguments)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\), \(1, 8, 8\)"):
        DepthMetrics(Protocol()).update(torch.ones(1, 4, 4), torch.ones(1, 8, 8), torch.ones(1, 8, 8).bool())


@pytest.mark.parametrize("module", [errors, depth_metrics])
def test_examples_in_docstrings(module):
    globs = {"torch": torch, "DepthMetrics": DepthMetrics, "Protocol": Protocol, "abs_rel": errors.abs_rel}
    results = doctest.testmod(module, extraglobs=globs)
    assert results.attempted and not results.failed


def test_best_constant_is_the_best_of_many():
    _, target, mask = _maps(4)
    protocol = Protocol(1e-3, 8.0)

    def error(constant):
        metrics = DepthMetrics(protocol)
        metrics.update(torch.full_like(target, constant), target, mask)
        return metrics.compute()["abs_rel"].item()

    best = best_constant(zip(target, mask, strict=True), protocol)
    assert error(best) <= min(error(constant) for constant in np.geomspace(0.1, 8, 200)) * 1.0001
    with pytest.raises(ValueError, match="no best constant"):
        best_constant([(target[0], torch.zeros_like(mask[0]))], protocol)
