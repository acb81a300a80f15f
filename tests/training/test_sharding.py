"""Two processes that each hold half of the network, against one that holds it all."""

import copy

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh

from depth_lightning.models import DepthAnythingV2
from depth_lightning.training.optimizer import adamw
from depth_lightning.training.sharding import full_tensor, is_sharded, reshard, shard, shard_like, unshard

OPTIONS = [{}, {"recompute_blocks": True}, {"freeze_encoder": True}]


def _network(**options):
    torch.manual_seed(0)
    return DepthAnythingV2("tiny", **options)


def _images():
    return torch.rand(4, 3, 28, 42, generator=torch.Generator().manual_seed(1))


def _step(network, images):
    """A step of the optimizer: the gradient's norm, the gradients, and the weights afterwards."""
    optimizer = adamw(network.parameter_groups(), lr=1e-3)
    (network(images) ** 2).mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    norm = full_tensor(torch.nn.utils.get_total_norm(list(gradients.values()))).item()
    gradients = {name: full_tensor(gradient).clone() for name, gradient in gradients.items()}
    optimizer.step()
    return norm, gradients, {name: full_tensor(p.detach()).clone() for name, p in network.named_parameters()}


def _worker(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    own = _images()[2 * rank : 2 * rank + 2]
    found = []
    for options in OPTIONS:
        network = _network(**options)
        shard(network, mesh)
        assert is_sharded(network)
        held = sum(p.to_local().numel() for p in network.parameters())
        found.append((*_step(network, own), held))
    before = {f"network.{name}": p for name, p in _network(**options).state_dict().items()}
    network.load_state_dict({name.removeprefix("network."): p for name, p in shard_like(network, before).items()})
    unshard(network)
    with torch.no_grad():
        predictions = [network(_images()[:1]) for _ in range(1 + 2 * rank)]  # nobody waits for anybody
    reshard(network)
    network(own).mean().backward()
    torch.save((found, predictions[-1]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_steps_of_two_halves_equal_those_of_the_whole(tmp_path):
    torch.multiprocessing.spawn(_worker, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for options, (norm, gradients, weights, held), there in zip(OPTIONS, first[0], second[0], strict=True):
        network = _network(**options)
        start = copy.deepcopy(network.state_dict())
        expected_norm, expected_gradients, expected = _step(network, _images())
        total = sum(p.numel() for p in network.parameters())
        assert held + there[-1] == total and held < 0.6 * total
        assert norm == pytest.approx(expected_norm, rel=1e-5)
        assert gradients.keys() == expected_gradients.keys()
        for name, gradient in expected_gradients.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6 * expected_norm)
        for name, weight in expected.items():
            # Adam's first step is the gradient's sign, which rounding decides where the gradient is next to nothing.
            torch.testing.assert_close(weights[name].mean(), weight.mean(), rtol=1e-3, atol=1e-5)
            assert torch.equal(weights[name], there[2][name])
        assert max((expected[name] - start[name]).abs().max() for name in expected) > 5e-4
    with torch.no_grad():
        torch.testing.assert_close(first[1], _network()(_images()[:1]))
    assert torch.equal(first[1], second[1])
