"""A training step never makes the host wait for the device: nothing in it depends on the values of a tensor there.

Shown without a GPU, by tensors that have a shape, a device and no values.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from depth_lightning.runs import objects
from depth_lightning.sample import DepthBatch, DepthKind

SIZE = (84, 112)


class CopiedError(Exception):
    """A tensor went from the device to the host."""


class NoCopies(TorchDispatchMode):
    """Raises where a tensor is copied from the device to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[-1] if func == torch.ops.aten.copy_.default else args[0]
            if source.device.type == "cuda" and result.device.type == "cpu":
                raise CopiedError
        return result


WAITS = (DataDependentOutputException, DynamicOutputShapeException, CopiedError)


@pytest.fixture
def step(compose_config, tmp_path, monkeypatch):
    """step(typed, kinds): run a training step on a device that has no values."""
    if not torch.backends.cuda.is_built():
        pytest.skip("needs a torch that was built with CUDA, though no GPU")

    def run(typed, kinds):
        cfg = compose_config("train", [*typed, "model=tiny", "model.weights=null"], tmp_path)
        module = objects.build_module(cfg, objects.build_network(cfg.model))
        for name in ("log", "log_dict"):
            monkeypatch.setattr(module, name, lambda *args, **options: None)
        with FakeTensorMode(allow_non_fake_inputs=True), NoCopies():
            module.network.to_empty(device="cuda")
            module.objective.to_empty(device="cuda")
            with torch.device("cuda"):
                image = torch.empty(len(kinds), 3, *SIZE, dtype=torch.uint8)
                target = torch.empty(len(kinds), *SIZE)
                mask = torch.empty(len(kinds), *SIZE, dtype=torch.bool)
            cameras = torch.full((len(kinds), 4), torch.nan)
            ids = [str(number) for number in range(len(kinds))]
            return module.training_step(DepthBatch(image, target, mask, cameras, kinds, ids, ids), 0)

    return run


METRES, DISPARITY, UP_TO_SCALE = DepthKind.METRES, DepthKind.DISPARITY, DepthKind.UP_TO_SCALE


@pytest.mark.parametrize(
    "typed, kinds",
    [
        (["experiment=nyu_vits"], [METRES] * 3),
        (["experiment=nyu_vits", "head=log_depth"], [METRES] * 3),
        (["experiment=nyu_vits", "model.recompute_blocks=true"], [METRES] * 3),
        (["experiment=relative"], [DISPARITY] * 3),
        (["experiment=relative"], [DISPARITY, METRES, UP_TO_SCALE]),
        (["experiment=nyu_vits"], [DISPARITY, METRES, UP_TO_SCALE]),
    ],
)
def test_a_training_step_does_not_wait(step, typed, kinds):
    assert step(typed, kinds).device.type == "cuda"


@pytest.mark.parametrize(
    "wait",
    [
        lambda values: values.sum().item(),
        lambda values: values.tolist(),
        lambda values: bool((values > 0).any()),
        lambda values: values[values > 0],
        lambda values: values.cpu(),
        lambda values: torch.empty(3).copy_(values),
    ],
)
def test_what_waits_is_caught(wait):
    with FakeTensorMode(), NoCopies(), pytest.raises(WAITS):
        wait(torch.empty(3, device="cuda"))
