import numpy as np
import pytest
import scipy.ndimage
import scipy.optimize
import torch

from depth_lightning.metrics import DepthMetrics, PartMetrics, Protocol, group_rows, units_of
from depth_lightning.metrics.breakdowns import SAMPLE, near_depth_edge
from depth_lightning.metrics.corrections import corrections, fit_scale, fit_scale_offset


@pytest.fixture(scope="module")
def maps():
    generator = torch.Generator().manual_seed(0)
    coarse = 0.3 + 9 * torch.rand(4, 1, 6, 8, generator=generator)
    target = torch.nn.functional.interpolate(coarse, (48, 64), mode="bilinear")[:, 0]
    prediction = target * (0.7 + 0.6 * torch.rand(target.shape, generator=generator))
    mask = torch.rand(target.shape, generator=generator) < torch.tensor([0.1, 0.4, 0.6, 1.0])[:, None, None]
    return prediction, torch.where(mask, target, 0), mask


PROTOCOL = Protocol(max_depth=8.0)


def _rows(maps, protocol=PROTOCOL, singly=False, ids=("a", "b", "c", "d"), scenes=("",) * 4):
    metrics = PartMetrics(protocol)
    parts = [slice(image, image + 1) for image in range(4)] if singly else [slice(None)]
    for part in parts:
        metrics.update(*(tensor[part] for tensor in maps), ids[part], scenes[part])
    return metrics.compute()


def _expected(p, t):
    return {
        "abs_rel": np.mean(np.abs(p - t) / t),
        "bias": np.mean((p - t) / t),
        "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "delta1": np.mean(np.maximum(p / t, t / p) < 1.25),
        "mean_target": np.mean(t),
        "mean_prediction": np.mean(p),
    }


def _numbers(rows):
    return [value for row in rows for value in row.values() if not isinstance(value, str)]


def _check(row, chosen, arrays, valid):
    p, t, _ = arrays
    chosen = chosen & valid
    assert row["pixels"] == chosen.sum()
    assert row["share"] == pytest.approx(chosen.sum() / valid.sum())
    expected = _expected(p[chosen].astype(float), t[chosen].astype(float))
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_parts_equal_numpy(maps):
    rows = _rows(maps)
    _, t, m = arrays = [tensor.numpy() for tensor in maps]
    valid = m & (t > 1e-3) & (t < 8)
    for row in rows["by_distance"]:
        _check(row, (t > row["from_m"]) & (t <= row["to_m"]), arrays, valid)
    assert rows["by_distance"][-1]["to_m"] == 8
    assert sum(row["pixels"] for row in rows["by_distance"]) == valid.sum()

    far = np.where(m, t, -np.inf)
    near = np.where(m, t, np.inf)
    around = {"size": (1, 3, 3), "mode": "constant"}
    farthest = scipy.ndimage.maximum_filter(far, **around, cval=-np.inf)
    nearest = scipy.ndimage.minimum_filter(near, **around, cval=np.inf)
    edge = farthest > 1.25 * nearest
    assert (near_depth_edge(*maps[1:]).numpy() == edge).all() and 0.05 < edge.mean() < 0.95
    _check(rows["by_edge"][0], edge, arrays, valid)
    _check(rows["by_edge"][1], ~edge, arrays, valid)

    row, column = np.indices((48, 64))
    for number, region in enumerate(rows["by_region"]):
        inside = (row // 16 == number // 3) & (np.digitize(column, [21, 43]) == number % 3)
        _check(region, np.broadcast_to(inside, t.shape), arrays, valid)
    assert rows["by_region"][5]["part"] == "middle right"


def test_batches_and_order_do_not_move_the_result(maps):
    assert _rows(maps) == _rows(maps, singly=True)
    turned = [tensor.flip(0) for tensor in maps]
    found, expected = _rows(turned, ids=("d", "c", "b", "a")), _rows(maps)
    assert found["corrections"] == expected["corrections"]
    assert _numbers(found["by_region"]) == pytest.approx(_numbers(expected["by_region"]))


def test_parts_follow_the_alignment_and_leave_out_what_has_none(maps):
    prediction, target, mask = maps
    aligned = _rows((3 * prediction, target, mask), Protocol(max_depth=8.0, alignment="scale_least_squares"))
    once = _rows((prediction, target, mask), Protocol(max_depth=8.0, alignment="scale_least_squares"))
    assert _numbers(aligned["by_region"]) == pytest.approx(_numbers(once["by_region"]), rel=1e-4)
    metrics = PartMetrics(Protocol(alignment="scale_shift_depth"))
    metrics.update(torch.ones_like(target), target, mask, ["a"] * 4, [""] * 4)
    metrics.update(prediction, target, mask, ["a"] * 4, [""] * 4, scale_known=False)
    assert metrics.compute() == {"by_distance": [], "by_edge": [], "by_region": [], "corrections": []}


def test_edges_are_seen_across_holes():
    target = torch.ones(1, 300, 300)
    target[..., 150:] = 2
    mask = torch.ones_like(target, dtype=torch.bool)
    mask[..., 149:151] = False
    columns = near_depth_edge(target, mask)[0, 150].nonzero().ravel()
    assert columns.min() == 148 and columns.max() == 151  # radius 3, and a hole in the middle


def test_a_model_that_is_wrongly_scaled_is_told_from_one_that_is_wrong():
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 8, (40, SAMPLE))
    units = units_of([""] * 40)
    noisy = target * np.exp(0.2 * rng.standard_normal(target.shape))
    for prediction, expected in ((target / 1.3, (0, 0)), ((target - 0.4) / 1.3, (None, 0)), (noisy, (1, 1))):
        none, scale, affine = corrections(prediction, target, units, 1e-3)
        for row, share in zip((scale, affine), expected, strict=True):
            if share is not None:
                assert row["abs_rel"] == pytest.approx(share * none["abs_rel"], abs=0.02)
    assert none["abs_rel"] == pytest.approx(np.mean(np.abs(noisy - target) / target))


def test_every_image_is_corrected_by_what_others_gave():
    target = np.random.default_rng(0).uniform(1, 8, (20, SAMPLE))
    scenes = ["a", "b", "c", "d", "e"] * 4
    factors = {"a": 2.0, "b": 3.0, "c": 4.0, "d": 5.0, "e": 6.0}
    prediction = target / np.array([factors[scene] for scene in scenes])[:, None]
    row = corrections(prediction, target, units_of(scenes), 1e-3)[1]
    assert sorted(row["scales"]) != [1.0, 1.0] and set(row["scales"]) <= set(factors.values())
    assert row["abs_rel"] > 0.2
    assert corrections(prediction[:1], target[:1], units_of(["a"]), 1e-3) == []


def test_fits_have_the_least_abs_rel():
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 8, 3000)
    prediction = (target + 0.5) * np.exp(0.3 * rng.standard_normal(3000)) / 2

    def error(coefficients):
        return np.mean(
            np.abs(coefficients[0] * prediction + coefficients[-1] * (len(coefficients) - 1) - target) / target
        )

    scale, _ = fit_scale(prediction, target)
    assert error([scale]) <= scipy.optimize.minimize(error, [1.0], method="Nelder-Mead").fun * 1.0001
    affine = scipy.optimize.minimize(error, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8}).fun
    assert error(fit_scale_offset(prediction, target)) == pytest.approx(affine, rel=1e-3)
    assert fit_scale_offset(np.full(50, 2.0), target[:50]) == fit_scale(np.full(50, 2.0), target[:50])


def test_groups_of_images_are_averages_over_them(maps):
    metrics = DepthMetrics(Protocol(max_depth=8.0))
    metrics.update(*maps, ids=["d", "c", "b", "a"], scenes=["y", "x", "y", "z"])
    empty = [tensor[:1] for tensor in maps[:2]]
    metrics.update(*empty, torch.zeros(1, 48, 64, dtype=torch.bool), ids=["e"], scenes=["w"])
    table = metrics.images()
    assert table.id == ["a", "b", "c", "d", "e"] and table.status[4] == "without_valid_pixel"
    by_share, by_scene = group_rows(table).values()
    assert {row["scene"]: row["images"] for row in by_scene} == {"x": 1, "y": 2, "z": 1}
    assert [row["abs_rel"] for row in by_scene] == sorted((row["abs_rel"] for row in by_scene), reverse=True)
    y = next(row for row in by_scene if row["scene"] == "y")
    assert y["rmse"] == pytest.approx(table.errors["rmse"][[1, 3]].mean())
    assert [(row["from_share"], row["images"]) for row in by_share] == [(0, 1), (0.25, 1), (0.5, 1), (0.75, 1)]
