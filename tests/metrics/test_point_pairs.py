import doctest
import math

import numpy as np
import pytest
import torch

from depth_lightning.metrics import point_pairs
from depth_lightning.metrics.point_pairs import PairCounts, PointPairAccuracy, pair_margins


def test_docstring_example():
    assert doctest.testmod(point_pairs).failed == 0


def test_margins_read_rows_and_columns():
    nearness = torch.arange(12.0).view(3, 4) ** 2
    margins = pair_margins(nearness, torch.tensor([[2, 3], [0, 1]]), torch.tensor([[1, 0], [2, 2]]))
    assert margins.tolist() == [11**2 - 4**2, 1 - 10**2]


def test_accuracy_agrees_with_counting_by_hand():
    rng = np.random.default_rng(0)
    metric = PointPairAccuracy(["indoor", "outdoor", "aerial"])
    right = {scene: [] for scene in metric.scenes}
    for i in range(30):
        scene = metric.scenes[i % 7 % 3]
        nearness = rng.integers(0, 4, (5, 9)).astype(np.float32)  # few values, so that there are ties
        pairs = rng.integers(0, (5, 9), (rng.integers(1, 6), 2, 2))
        right[scene] += [bool(nearness[tuple(near)] > nearness[tuple(far)]) for near, far in pairs]
        metric.update(torch.tensor(nearness), *torch.tensor(pairs).unbind(1), scene)
    found = metric.compute()
    shares = {scene: sum(answers) / len(answers) for scene, answers in right.items()}
    assert len(set(shares.values())) == 3
    assert {f"accuracy_{scene}": share for scene, share in shares.items()} == {
        name: float(value) for name, value in found.items() if name.startswith("accuracy_")
    }
    everything = [answer for answers in right.values() for answer in answers]
    assert float(found["accuracy"]) == sum(everything) / len(everything)
    assert float(found["mean_scene_accuracy"]) == pytest.approx(sum(shares.values()) / 3, abs=1e-12)
    assert float(found["accuracy"]) != pytest.approx(float(found["mean_scene_accuracy"]))
    counts = metric.counts()
    assert counts.images == 30
    assert counts.pairs == {scene: len(answers) for scene, answers in right.items()}


def test_ties_and_nan_are_wrong_and_counted():
    metric = PointPairAccuracy(["indoor"])
    nearness = torch.tensor([[1.0, 1.0, torch.nan, 2.0]])
    nearer = torch.tensor([[0, 0], [0, 2], [0, 3], [0, 0]])
    farther = torch.tensor([[0, 1], [0, 0], [0, 0], [0, 3]])
    metric.update(nearness, nearer, farther, "indoor")
    assert float(metric.compute()["accuracy"]) == 0.25
    assert metric.counts() == PairCounts(images=1, pairs={"indoor": 4}, ties=2)


def test_a_scene_type_without_pairs_is_nan_and_left_out_of_the_mean():
    metric = PointPairAccuracy(["indoor", "aerial"])
    metric.update(torch.eye(2), torch.tensor([[0, 0]]), torch.tensor([[0, 1]]), "aerial")
    found = metric.compute()
    assert math.isnan(found["accuracy_indoor"])
    assert float(found["mean_scene_accuracy"]) == float(found["accuracy"]) == 1.0


def test_only_the_order_counts():
    generator = torch.Generator().manual_seed(0)
    nearness = torch.rand(20, 30, generator=generator, dtype=torch.float64) + 0.1
    pairs = torch.randint(0, 20, (50, 2, 2), generator=generator)
    results = []
    for same_order in (nearness, 3 * nearness + 2, -1 / nearness, nearness.exp()):
        metric = PointPairAccuracy(["indoor"])
        metric.update(same_order, *pairs.unbind(1), "indoor")
        results.append(float(metric.compute()["accuracy"]))
    assert len(set(results)) == 1 and 0 < results[0] < 1
