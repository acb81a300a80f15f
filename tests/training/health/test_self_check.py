"""Every finding of the self-check, and that it leaves no trace."""

import logging
import random
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch

from depth_lightning.data import DepthDataModule, Mixture
from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.models import DepthAnythingV2, LoadReport
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.training import DepthModule, Objective
from depth_lightning.training.health.isolation import isolated
from depth_lightning.training.health.self_check import SelfCheck, SelfCheckError
from depth_lightning.training.optimizer import adamw
from depth_lightning.training.scheduler import constant

SIDE = 28
LOADED = LoadReport(Path("released.pth"), "official", "all", 174, (), (), None)


class Boards:
    """Noise with a depth that grows downwards, in metres times `scale`."""

    def __init__(self, split="train", scale=1.0, kind=DepthKind.METRES, valid=True):
        self.scale, self.kind, self.valid = scale, kind, valid

    def __len__(self):
        return 24

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        target = np.linspace(1, 4, SIDE, dtype=np.float32)[:, None] * np.ones(SIDE, np.float32) * self.scale
        return DepthSample(image, target, np.full((SIDE, SIDE), self.valid), self.kind, f"board_{index}")


class Ramp(DepthAnythingV2):
    """Predicts depth that grows downwards, or with `sign=-1`, upwards."""

    sign = 1.0

    def forward(self, image):
        rows = torch.linspace(0, 1, image.shape[2], device=image.device)[:, None]
        return super().forward(image) * 1e-3 + 5 + self.sign * rows


def fit(folder, *callbacks, network=None, boards=None, loss=None, disparity=None, steps=1, open_split=None):
    torch.manual_seed(0)
    network = network or DepthAnythingV2("tiny")
    data = DepthDataModule(
        open_split or (lambda split: Boards(split, **(boards or {}))),
        train_transform=lambda sample, seed: sample,
        eval_transform=lambda sample: sample._replace(image=(sample.image / 255).astype(np.float32)),
        batch_size=2,
    )
    losses = loss or SiLogLoss(), SiLogLoss(1.0), disparity or AffineInvariantLoss()
    objective = Objective(*losses, network.output, network.max_depth)
    module = DepthModule(
        network, objective=objective, schedule=constant, optimizer=lambda groups: adamw(groups, lr=1e-3)
    )
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=steps, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, limit_val_batches=1,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return module


def said(caplog):
    return "\n".join(record.getMessage() for record in caplog.records if "self_check" in record.name)


@pytest.fixture(autouse=True)
def listening(caplog):
    caplog.set_level(logging.INFO, "depth_lightning")


def test_a_sound_start_is_a_page_without_warnings(tmp_path, caplog):
    fit(tmp_path, SelfCheck())
    text = said(caplog)
    assert "weights: none loaded, all random" in text
    assert "targets: 100 % valid in 16 training images, 1 to 4 (metres), 0.0 % of the metres beyond" in text
    assert "100.0 % of the parameters are trained, and all of them get one" in text
    assert "2 images of 28×28, loss " in text and "0 % of the outputs saturated" in text
    assert "WARNING" not in text and "zero-shot" not in text


def test_it_leaves_no_trace(tmp_path):
    class Draws(torch.nn.Module):
        """A loss that draws random numbers."""

        def forward(self, prediction, target, mask):
            return ((prediction - target).abs() * torch.rand(()) * random.random() * np.random.rand()).mean()  # noqa: NPY002

    states = []
    for callbacks in ([], [SelfCheck(LOADED)]):
        lightning.seed_everything(7, verbose=False)
        network = Ramp("tiny")
        module = fit(tmp_path, *callbacks, network=network, loss=Draws(), steps=3)
        states.append((module.network.state_dict(), torch.get_rng_state(), random.getstate()))
    (without, rng, python), (checked, rng_checked, python_checked) = states
    assert all(torch.equal(without[name], checked[name]) for name in without)
    assert torch.equal(rng, rng_checked) and python == python_checked


def test_no_trace_in_buffers_modes_and_gradients():
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout())
    network[1].eval()
    before, random_state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad(), isolated(network):
        network.train()
        output = network(torch.randn(5, 3)).sum()
        assert torch.autograd.grad(output, network[0].weight)[0] is not None
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())
    assert network.training and network[0].training and not network[1].training
    assert network[0].weight.grad is None


def test_weights_from_a_file_are_a_share(tmp_path, caplog):
    fit(tmp_path, SelfCheck(LOADED._replace(init="encoder")))
    network = DepthAnythingV2("tiny")
    encoder = sum(p.numel() for p in network.encoder.parameters())
    total = sum(p.numel() for p in network.parameters())
    assert f"{100 * encoder / total:.1f} % of {total:,} parameters from released.pth; the head is random" in said(
        caplog
    )
    assert "zero-shot" not in said(caplog)  # a random head predicts nothing yet


@pytest.mark.parametrize(
    "boards, match",
    [
        ({"scale": 1000.0}, r"100 % of the targets are beyond model\.max_depth=10.*median is 2500.*in metres"),
        ({"valid": False}, "None of 16 training images has a valid target"),
    ],
)
def test_targets_that_nothing_can_be_learnt_from(boards, match, tmp_path):
    with pytest.raises(SelfCheckError, match=match):
        fit(tmp_path, SelfCheck(), boards=boards)


def test_targets_that_are_not_finite_never_get_there(tmp_path):
    with pytest.raises(ValueError, match="board_0: expected finite values"):
        fit(tmp_path, SelfCheck(), boards={"scale": float("nan"), "kind": DepthKind.DISPARITY})


@pytest.mark.parametrize(
    "scale, match", [(3.0, "of the targets are beyond"), (0.01, "choose a smaller model.max_depth")]
)
def test_targets_that_fit_badly_are_a_warning(scale, match, tmp_path, caplog):
    fit(tmp_path, SelfCheck(), boards={"scale": scale})
    assert "WARNING" in said(caplog) and match in said(caplog)


def test_a_part_of_a_mixture_that_the_head_does_not_reach_is_a_warning(tmp_path, caplog):
    fit(tmp_path, SelfCheck(), open_split=lambda split: Mixture({"near": Boards(), "far": Boards(scale=30.0)}))
    assert "far: 100 % of the targets are beyond model.max_depth=10" in said(caplog)
    assert "near: targets: 100 % valid in 16 training images" in said(caplog)
    with pytest.raises(SelfCheckError, match=r"^one: 100 % of the targets are beyond"):
        fit(tmp_path, SelfCheck(), open_split=lambda split: Mixture({"one": Boards(scale=30.0)}))


def test_a_dead_relative_head(tmp_path):
    network = DepthAnythingV2("tiny", output="relative")
    torch.nn.init.constant_(network.head.get_parameter("scratch.output_conv2.2.bias"), -100.0)
    with pytest.raises(SelfCheckError, match=r"The network is dead: 100\.0 % of its outputs are 0"):
        fit(tmp_path, SelfCheck(), network=network)


def test_a_saturated_metric_head(tmp_path):
    network = DepthAnythingV2("tiny")
    torch.nn.init.constant_(network.head.get_parameter("scratch.output_conv2.2.bias"), 50.0)
    with pytest.raises(SelfCheckError, match=r"dead.*an end of the sigmoid"):
        fit(tmp_path, SelfCheck(), network=network)


def test_a_weight_that_is_not_finite(tmp_path):
    network = DepthAnythingV2("tiny")
    network.head.projects[0].weight.data[0] = torch.nan
    with pytest.raises(
        SelfCheckError,
        match=r"not finite.*Already before the step, .*values of head\.projects\.0\.weight are not finite",
    ):
        fit(tmp_path, SelfCheck(), network=network)


def test_parameters_without_a_gradient_are_named(tmp_path, caplog):
    class Detached(DepthAnythingV2):
        def __init__(self):
            super().__init__("tiny")
            self.encoder.extra = torch.nn.Parameter(torch.zeros(3))

    fit(tmp_path, SelfCheck(), network=Detached())
    assert "trained tensors get no gradient: encoder.extra." in said(caplog)

    class Constant(torch.nn.Module):
        def forward(self, prediction, target, mask):
            return (prediction * 0).sum() + 1

    with pytest.raises(SelfCheckError, match="No parameter gets a gradient"):
        fit(tmp_path, SelfCheck(), loss=Constant())
    with pytest.raises(SelfCheckError, match="No parameter gets a gradient"):
        fit(tmp_path, SelfCheck(), network=DepthAnythingV2("tiny", output="relative"), disparity=Constant())


def test_the_last_bias_of_a_relative_network_needs_no_gradient(tmp_path, caplog):
    class Differences(torch.nn.Module):
        def forward(self, prediction, target, mask):
            return prediction.diff(dim=-1).abs().sum()

    relative = DepthAnythingV2("tiny", output="relative")
    fit(tmp_path, SelfCheck(), network=relative, disparity=Differences())
    assert relative._last_layer()[1].item() == pytest.approx(1, abs=2e-4), "more than weight decay changed the bias"
    assert "no gradient" not in said(caplog)


@pytest.mark.parametrize("sign, absurd", [(1.0, False), (-1.0, True)])
def test_zero_shot_of_published_weights(sign, absurd, tmp_path, caplog):
    network = Ramp("tiny")
    network.sign = sign
    if absurd:
        with pytest.raises(SelfCheckError, match=r"correlation of -1\.00 with the ground truth.*data\.kind"):
            fit(tmp_path, SelfCheck(LOADED), network=network)
    else:
        fit(tmp_path, SelfCheck(LOADED), network=network)
        assert "zero-shot: correlation 1.00 with the ground truth, averaged over 4 validation images" in said(caplog)


def test_a_disparity_network_is_compared_with_the_inverse_of_depth(tmp_path, caplog):
    network = Ramp("tiny", output="relative")
    network.sign = -1.0
    fit(tmp_path, SelfCheck(LOADED), network=network)
    assert "zero-shot: correlation 0.9" in said(caplog)
