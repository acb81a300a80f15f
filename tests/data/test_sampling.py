import pytest
from torch.utils.data import DataLoader

from depth_lightning.data.sampling import EvaluationSampler, TrainSampler, draw, evenly_spread
from depth_lightning.sample import collate


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def global_batches(length, global_batch_size, world_size, epoch):
    """What an optimizer step sees, put together from every rank's own batches."""
    ranks = [
        epoch_of(TrainSampler(length, 7, global_batch_size, rank, world_size), epoch) for rank in range(world_size)
    ]
    share = global_batch_size // world_size
    return [
        {drawn for rank in ranks for drawn in rank[step * share : (step + 1) * share]}
        for step in range(len(ranks[0]) // share)
    ]


@pytest.mark.parametrize("length", [24, 65, 71])
@pytest.mark.parametrize("epoch", [0, 3])
def test_global_batches_are_the_same_on_any_number_of_devices(length, epoch):
    expected = global_batches(length, 12, 1, epoch)
    assert len(expected) == length // 12
    assert all(len(batch) == 12 for batch in expected)
    assert len({drawn.index for batch in expected for drawn in batch}) == length // 12 * 12
    for world_size in (2, 3, 4, 6):
        assert global_batches(length, 12, world_size, epoch) == expected


def test_order_and_seeds_come_from_seed_and_epoch():
    sampler = TrainSampler(50, 1, 10)
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert epoch_of(sampler, 0) == first == epoch_of(TrainSampler(50, 1, 5), 0)
    assert [drawn.index for drawn in first] != [drawn.index for drawn in second]
    assert sorted(drawn.index for drawn in second) == list(range(50))
    others = epoch_of(TrainSampler(50, 2, 10), 0)
    assert [drawn.index for drawn in others] != [drawn.index for drawn in first]
    assert len({drawn.seed for drawn in first + second + others}) == 150
    assert all(drawn == draw(1, 0, drawn.index) for drawn in first)


def test_lightning_and_torch_see_whole_batches():
    sampler = TrainSampler(23, 0, 8, rank=1, world_size=2)
    loader = DataLoader(range(23), batch_size=2, sampler=sampler)  # type: ignore[arg-type]
    assert len(loader) == 4
    assert len(list(sampler)) == 8


@pytest.mark.parametrize(("length", "world_size"), [(65, 3), (654, 8), (4, 4), (7, 1)])
def test_evaluation_counts_every_image_once(length, world_size):
    samplers = [EvaluationSampler(length, rank, world_size) for rank in range(world_size)]
    assert sorted(index for sampler in samplers for index in sampler) == list(range(length))
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]
    assert min(len(sampler) for sampler in samplers) > 0


def test_processes_without_an_image_get_an_empty_batch():
    assert [list(EvaluationSampler(2, rank, 4)) for rank in range(4)] == [[0], [1], [None], [None]]
    assert [len(EvaluationSampler(2, rank, 4)) for rank in range(4)] == [1, 1, 1, 1]
    batch = collate([])
    assert batch.image.shape[:2] == (0, 3) and batch.target.shape == batch.mask.shape and batch.id == ()


def test_too_few_images():
    with pytest.raises(ValueError, match=r"at least one global batch .* of 8 images, found 7\. .*data\.batch_size"):
        TrainSampler(7, 0, 8)
    with pytest.raises(ValueError, match="7 does not divide among 2"):
        TrainSampler(50, 0, 7, 0, 2)


@pytest.mark.parametrize(
    ("length", "most", "expected"),
    [
        (0, 3, []),
        (7, 0, []),
        (7, 1, [0]),
        (7, 2, [0, 6]),
        (7, 3, [0, 3, 6]),
        (6, 3, [0, 2, 5]),
        (654, 4, [0, 218, 435, 653]),
        (5, None, [0, 1, 2, 3, 4]),
        (3, 9, [0, 1, 2]),
    ],
)
def test_items_are_evenly_spread_from_the_first_to_the_last(length, most, expected):
    assert evenly_spread(range(length), most) == expected
    assert evenly_spread(range(100, 100 + length), most) == [100 + index for index in expected]
