import numpy as np
import pytest

from depth_lightning.data import Mixture
from depth_lightning.data.sampling import TrainSampler
from depth_lightning.sample import DepthKind, DepthSample


class _Part:
    def __init__(self, length, kind):
        self.length, self.kind = length, kind

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if not 0 <= index < self.length:
            raise IndexError(index)
        image, field = np.full((2, 2, 3), index, np.uint8), np.ones((2, 2), np.float32)
        return DepthSample(image, field, field > 0, self.kind, f"{index}.png", "room")


@pytest.fixture
def parts():
    return {"a": _Part(10, DepthKind.METRES), "b": _Part(3, DepthKind.DISPARITY), "c": _Part(87, DepthKind.UP_TO_SCALE)}


def test_every_sample_is_there_with_its_kind(parts):
    mixture = Mixture(parts)
    samples = [mixture[index] for index in range(len(mixture))]
    assert len({sample.id for sample in samples}) == 100
    assert [sample.kind for sample in samples] == [part.kind for part in parts.values() for _ in range(len(part))]
    assert (samples[9].id, samples[10].id, samples[13].id) == ("a/9.png", "b/0.png", "c/0.png")
    assert samples[11].image[0, 0, 0] == 1
    assert samples[12].scene == "b/room"
    part = parts["a"]
    assert Mixture({"a": [part[0]._replace(scene="")]})[0].scene == ""  # all of the part's images are not one scene


@pytest.mark.parametrize("weights", [{}, {"a": 5, "b": 1, "c": 0}, {"a": 0.1}, {"b": 100}])
@pytest.mark.parametrize("samples_per_epoch", [None, 7, 1000])
def test_proportions_hold_within_every_epoch(parts, weights, samples_per_epoch):
    mixture = Mixture(parts, weights, samples_per_epoch)
    epoch = samples_per_epoch or 100
    shares = np.array([weights.get(name, 1) for name in parts], float)
    for seed in range(3):
        order = mixture.epoch_order(np.random.default_rng(seed))
        assert len(order) == epoch
        counts = np.histogram(order, bins=[0, 10, 13, 100])[0]
        assert (np.abs(counts - epoch * shares / shares.sum()) < 1).all()
        times = np.bincount(order, minlength=100)
        for part in (times[:10], times[10:13], times[13:]):
            assert part.max() - part.min() <= 1  # no sample comes again before its whole part was seen


@pytest.mark.parametrize("weights", [{"a": 1, "c": 2}, {"a": 5, "c": 3}, {"a": 1, "c": 30}])
@pytest.mark.parametrize("batch", [3, 12, 16])
def test_every_batch_holds_the_parts_in_their_ratio(parts, weights, batch):
    mixture = Mixture({name: parts[name] for name in "ac"}, weights, samples_per_epoch=480, every_batch=True)
    share, steps = weights["a"] / sum(weights.values()), 480 // batch
    for seed in range(3):
        order = mixture.epoch_order(np.random.default_rng(seed))
        assert (np.bincount(order, minlength=97)[10:] >= 480 * (1 - share) // 87).all()
        counts = (order.reshape(steps, batch) < 10).sum(axis=1)
        assert (np.abs(counts - batch * share) < 1 + 1 / batch).all()
    if batch > 3:
        alone = Mixture({name: parts[name] for name in "ac"}, weights, samples_per_epoch=480)
        spread = (alone.epoch_order(np.random.default_rng(0)).reshape(steps, batch) < 10).sum(axis=1)
        assert (np.abs(spread - batch * share) >= 1 + 1 / batch).any(), "an epoch's ratio alone is not every batch's"


def test_the_same_seed_gives_the_same_order_and_parts_are_interleaved(parts):
    mixture = Mixture(parts, {"a": 1, "b": 0, "c": 1}, 200)
    first, again, other = (mixture.epoch_order(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    halves = [(half < 10).sum() for half in (first[:100], first[100:])]
    assert min(halves) > 30


def test_a_sample_that_comes_twice_is_augmented_differently(parts):
    mixture = Mixture(parts, {"b": 100}, 60)
    draws = list(TrainSampler(60, 0, 4, order=mixture.epoch_order))
    assert len({draw.index for draw in draws}) < len(draws)
    assert len({draw.seed for draw in draws}) == len(draws)
    ranks = [list(TrainSampler(60, 0, 4, rank, 2, mixture.epoch_order)) for rank in (0, 1)]
    assert [draw for pair in zip(*ranks, strict=True) for draw in pair] == draws


@pytest.mark.parametrize(
    "weights, match",
    [
        ({"d": 1}, "^weights names d, which is none of the parts"),
        ({"a": -1}, r"^weights\.a is a number, 0 or above, found -1\.$"),
        (dict.fromkeys("abc", 0), "^weights needs a part that counts more than 0, found a: 0, b: 0, c: 0"),
    ],
)
def test_wrong_weights_are_refused(parts, weights, match):
    with pytest.raises(ValueError, match=match):
        Mixture(parts, weights)
