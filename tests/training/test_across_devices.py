"""The gradient of two processes with four images each against that of one with eight."""

import json

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.sample import DepthKind
from depth_lightning.training import Objective

MIXED = [DepthKind.METRES] * 5 + [DepthKind.DISPARITY] * 3  # the second process has one with metres
CASES = {
    "pooled": ({}, {}, [DepthKind.METRES] * 8),
    "across devices": ({}, {"across_devices": True}, [DepthKind.METRES] * 8),
    "across devices, mixed": ({}, {"across_devices": True}, MIXED),
    "per image": ({"per_image": True}, {}, [DepthKind.METRES] * 8),
}


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 1, 3), nn.Softplus())


def _images():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(8, 3, 20, 20, generator=generator)
    target = 0.5 + 4 * torch.rand(8, 16, 16, generator=generator)
    mask = torch.rand(8, 16, 16, generator=generator) < torch.linspace(0.05, 1, 8)[:, None, None]
    mask[3] = False
    return image, torch.where(mask, target, 0), mask


def _gradients(case, part, wrap=lambda network: network):
    """The loss and the gradient of some of the images."""
    silog, options, kinds = CASES[case]
    objective = Objective(SiLogLoss(0.5, **silog), SiLogLoss(1.0), AffineInvariantLoss(), output="metric", **options)
    network = wrap(_network())
    image, target, mask = (tensor[part] for tensor in _images())
    images = objective.whole_batch(network(image)[:, 0] + 0.1, target, mask, kinds[part])
    loss = objective.weighed(objective.by_kind(*images), images[-1]).value
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).tolist()


def _worker(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    part = slice(4 * rank, 4 * rank + 4)
    found = {case: _gradients(case, part, DistributedDataParallel) for case in CASES}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_two_processes_with_four_images_equal_one_with_eight(tmp_path):
    torch.multiprocessing.spawn(_worker, args=(tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for case in CASES:
        loss, gradient = _gradients(case, slice(None))
        assert first[case][1] == second[case][1]  # what DDP averaged
        mean = (first[case][0] + second[case][0]) / 2
        if case == "pooled":
            assert mean != pytest.approx(loss, rel=1e-3)
            assert first[case][1] != pytest.approx(gradient, rel=0.01, abs=1e-6)
        else:
            assert mean == pytest.approx(loss, rel=1e-5), case
            assert first[case][1] == pytest.approx(gradient, rel=1e-4, abs=1e-6), case
    assert first["across devices"][0] == second["across devices"][0]


def test_one_process_is_as_without():
    objective = Objective(SiLogLoss(), SiLogLoss(), AffineInvariantLoss(), output="metric", across_devices=True)
    given = (*_images(), [DepthKind.METRES] * 8)
    assert all(found is expected for found, expected in zip(objective.whole_batch(*given), given, strict=True))


def test_accumulated_batches_of_the_loss_per_image_are_exact():
    whole = _gradients("per image", slice(None))
    halves = [_gradients("per image", slice(start, start + 4)) for start in (0, 4)]
    mean = (torch.tensor(halves[0][1]) + torch.tensor(halves[1][1])) / 2
    assert mean.tolist() == pytest.approx(whole[1], rel=1e-4, abs=1e-6)
