"""From batch to loss, the host never waits for the GPU: on one that is only imagined, what would is caught.

`benchmarks/gpu.py --only profile` counts the waits of whole steps on a real one.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from depth_lightning.data.photometric import ColourNoise
from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.sample import DepthKind
from depth_lightning.training import Objective


class NoWaits(TorchDispatchMode):
    """Refuses copies between devices that are not asked for as non_blocking, and reading a value back."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        assert name not in ("aten::_local_scalar_dense", "aten::nonzero"), f"{name} waits for the device"
        if name in ("aten::_to_copy", "aten::copy_"):
            source = args[1] if name == "aten::copy_" else args[0]
            non_blocking = (kwargs or {}).get("non_blocking", args[2] if len(args) > 2 else False)
            assert source.device == result.device or non_blocking, f"{name} from {source.device} waits for the device"
        return result


@pytest.mark.parametrize("output", ["metric", "relative"])
def test_the_host_does_not_wait_from_batch_to_loss(output):
    silog = SiLogLoss()
    objective = Objective(silog, silog, AffineInvariantLoss(), output=output, max_depth=10.0)
    colours = ColourNoise(jitter_probability=1, noise_probability=0)  # an imagined GPU has no generator for noise
    network = DepthAnythingV2("tiny", output=output)
    trained = dict(network.named_parameters())
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    imagined = FakeTensorMode()
    with imagined, torch.device("cuda"):
        weights = {name: torch.empty(shape, requires_grad=name in trained) for name, shape in shapes.items()}
        image = torch.empty(2, 3, 84, 112, dtype=torch.uint8)
        target, mask = torch.empty(2, 84, 112), torch.empty(2, 84, 112, dtype=torch.bool)
    with imagined, NoWaits():
        prediction = functional_call(network, weights, normalize(colours(image, [1, 2])))
        loss = objective(prediction, target, mask, [DepthKind.METRES] * 2)
    assert loss.requires_grad and loss.device.type == "cuda"
