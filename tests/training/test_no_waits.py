"""From batch to loss, the host never waits for the GPU: on one that is only imagined, what would is caught.

`benchmarks/gpu.py --only profile` counts the waits of whole steps on a real one.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from depth_lightning.data.photometric import ColourNoise
from depth_lightning.runs import objects
from depth_lightning.sample import DepthBatch, DepthKind

METRES, UP_TO_SCALE, DISPARITY = DepthKind
WAITS = (AssertionError, DataDependentOutputException, DynamicOutputShapeException)


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


@pytest.mark.parametrize(
    "typed, kinds",
    [
        (["experiment=nyu_vits"], [METRES] * 2),
        (["experiment=nyu_vits", "head=log_depth"], [METRES] * 2),
        (["experiment=nyu_vits", "model.recompute_blocks=true"], [METRES] * 2),
        (["experiment=nyu_vits"], [DISPARITY, METRES, UP_TO_SCALE]),
        (["experiment=relative"], [METRES] * 2),
        (["experiment=relative"], [DISPARITY] * 2),
        (["experiment=relative"], [DISPARITY, METRES, UP_TO_SCALE]),
    ],
)
def test_the_host_does_not_wait_from_batch_to_loss(typed, kinds, compose_config, tmp_path, monkeypatch):
    cfg = compose_config("train", [*typed, "model=tiny", "model.weights=null"], tmp_path)
    module = objects.build_module(cfg, objects.build_network(cfg.model))
    for name in ("log", "log_dict"):
        monkeypatch.setattr(module, name, lambda *args, **options: None)
    colours = ColourNoise(jitter_probability=1, noise_probability=0)  # an imagined GPU has no generator for noise
    names, cameras = [""] * len(kinds), torch.full((len(kinds), 4), torch.nan)
    imagined = FakeTensorMode(allow_non_fake_inputs=True)
    with imagined:
        module.to_empty(device="cuda")
        with torch.device("cuda"):
            image = torch.empty(len(kinds), 3, 84, 112, dtype=torch.uint8)
            target, mask = torch.empty(len(kinds), 84, 112), torch.empty(len(kinds), 84, 112, dtype=torch.bool)
    with imagined, NoWaits():
        image = colours(image, [*range(len(kinds))])
        loss = module.training_step(DepthBatch(image, target, mask, cameras, kinds, names, names), 0)
    assert loss.requires_grad and loss.device.type == "cuda"


@pytest.mark.parametrize(
    "wait",
    [
        lambda values: values.sum().item(),
        lambda values: values.tolist(),
        lambda values: bool((values > 0).any()),
        lambda values: values[values > 0],
        lambda values: values.cpu(),
        lambda values: torch.empty(3).copy_(values),
        lambda values: torch.empty(3).to(values.device),
    ],
)
def test_what_waits_is_caught(wait):
    with FakeTensorMode(), NoWaits(), pytest.raises(WAITS):
        wait(torch.empty(3, device="cuda"))
