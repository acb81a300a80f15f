"""Every planted fault is seen, left out exactly, recorded and found again."""

import json
import math

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader

from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.models import DepthAnythingV2
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.settings import SettingError
from depth_lightning.training import DepthModule, Objective
from depth_lightning.training.health.incident import read_incident
from depth_lightning.training.health.inspection import inspect_step
from depth_lightning.training.health.watch import StoppedByWatchError, Watch
from depth_lightning.training.optimizer import adamw
from depth_lightning.training.scheduler import constant

SIDE = 28


def batch(seed, kind=DepthKind.METRES, broken=False):
    rng = torch.Generator().manual_seed(seed)
    target = torch.rand(2, SIDE, SIDE, generator=rng) + 1
    if broken:
        target[1, 3, 4] = torch.nan
    image = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=rng, dtype=torch.uint8)
    ids = (f"room/{seed}_0.png", f"room/{seed}_1.png")
    everywhere, unknown = torch.ones(2, SIDE, SIDE, dtype=torch.bool), torch.full((2, 4), torch.nan)
    return DepthBatch(image, target, everywhere, unknown, (kind, kind), ids, ("", ""), (1, 2))


class Plant(Callback):
    """Calls something before a step."""

    def __init__(self, step, change):
        self.step, self.change = step, change

    def on_train_batch_start(self, trainer, module, batch, index):
        if index == self.step:
            self.change(module)


class RootLoss(torch.nn.Module):
    """Exact at the first pixel: the root's gradient at 0 is infinite, the loss itself finite."""

    at_zero = False

    def forward(self, prediction, target, mask):
        distance = (prediction - target).abs()
        if self.at_zero:
            distance = distance * 0
        return distance.sqrt().mean()


def fit(folder, batches, *callbacks, metres=None, fused=None, accumulate=1, watch=None, plugins=None):
    """Train over the batches once; the module and the watch."""
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny")
    objective = Objective(metres or SiLogLoss(), SiLogLoss(1.0), AffineInvariantLoss(), "metric", 10.0)

    def optimizer(groups):
        made = adamw(groups, lr=1e-3)
        for group in made.param_groups:
            group["fused"], group["foreach"] = fused, None
        return made

    module = DepthModule(network, objective=objective, optimizer=optimizer, schedule=constant)
    watch = watch or Watch(folder / "incidents", "skip")
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[*callbacks, watch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=accumulate, plugins=plugins,
        default_root_dir=folder, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return module, watch


def weights(module):
    return {name: tensor.clone() for name, tensor in module.network.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def moments(module):
    return [value for state in module.optimizers().state_dict()["state"].values() for value in state.values()]


@pytest.mark.parametrize("fused", [None, True])
def test_a_bad_step_is_as_if_its_batch_had_not_been(fused, tmp_path):
    bad = batch(9, DepthKind.DISPARITY, broken=True)
    with_it, watch = fit(tmp_path, [batch(0), batch(1), bad, batch(2)], fused=fused)
    without, _ = fit(tmp_path / "clean", [batch(0), batch(1), batch(2)], fused=fused)
    assert watch.state_dict()["skipped"] == [2]
    assert same(weights(with_it), weights(without))
    for mine, theirs in zip(moments(with_it), moments(without), strict=True):
        assert torch.equal(mine, theirs)
    assert not (tmp_path / "clean/incidents").exists()


@pytest.mark.parametrize("fused", [None, True])
def test_the_last_step_is_judged_too(fused, tmp_path):
    _, watch = fit(tmp_path, [batch(0), batch(9, DepthKind.DISPARITY, broken=True)], fused=fused)
    assert watch.state_dict()["skipped"] == [1]
    assert (tmp_path / "incidents/step_000001/incident.json").is_file()


@pytest.mark.parametrize("fused", [None, True])
def test_stop_ends_with_the_weights_from_before(fused, tmp_path):
    seen = {}
    plant = Plant(2, lambda module: seen.update(weights(module)))
    batches = [batch(0), batch(1), batch(9, DepthKind.DISPARITY, broken=True), batch(2), batch(3)]
    modules = []
    plant_module = Plant(0, modules.append)
    with pytest.raises(
        StoppedByWatchError, match=r"step 2: the loss is nan\.(.|\n)*room/9_1\.png: 1 of 784 valid targets"
    ):
        fit(tmp_path, batches, plant, plant_module, fused=fused, watch=Watch(tmp_path / "incidents", "stop"))
    assert same(seen, weights(modules[0]))


def test_all_batches_of_an_accumulated_step_are_left_out_and_recorded(tmp_path):
    bad = batch(9, DepthKind.DISPARITY, broken=True)
    with_it, _ = fit(tmp_path, [batch(0), batch(1), batch(2), bad, batch(4), batch(5)], accumulate=2)
    without, _ = fit(tmp_path / "clean", [batch(0), batch(1), batch(4), batch(5)], accumulate=2)
    assert same(weights(with_it), weights(without))
    incident = read_incident(tmp_path / "incidents/step_000001")
    assert [b.id for b in incident.batches] == [batch(2).id, bad.id]
    assert incident.findings.losses[0] > 0 and incident.findings.losses[1] != incident.findings.losses[1]
    assert incident.findings.inputs_not_finite == ["room/9_1.png (batch 1): 1 of 784 valid targets are not finite."]


def test_the_record_is_exact_and_shows_where_it_began(tmp_path):
    def plant(module):
        module.network.head.scratch.layer2_rn.weight.data[0, 0, 0, 0] = torch.inf

    seen = {}
    look = Plant(1, lambda module: seen.update(weights(module)))
    fit(tmp_path, [batch(0), batch(1)], Plant(1, plant), look)
    incident = read_incident(tmp_path / "incidents/step_000001")
    assert same(seen, incident.weights)
    assert torch.equal(incident.batches[0].image, batch(1).image)
    assert torch.equal(incident.batches[0].target, batch(1).target)
    assert incident.batches[0].seed == (1, 2)
    findings = incident.findings
    assert findings.weights_not_finite == {"head.scratch.layer2_rn.weight": 1}
    assert findings.first_output.startswith("the output of head.scratch.layer2_rn (Conv2d):")
    assert findings.valid_pixels == [[SIDE * SIDE] * 2]
    assert set(findings.gradient_norms) == {
        name for name, p in DepthAnythingV2("tiny").named_parameters() if p.requires_grad
    }
    assert incident.circumstances.learning_rates == {"encoder": 1e-3, "head": 1e-2}
    content = json.loads((tmp_path / "incidents/step_000001/incident.json").read_text())
    assert "python -m depth_lightning replay" in content["replay"]
    assert len(list((tmp_path / "incidents/step_000001/pictures").glob("*.png"))) == 2


@pytest.mark.parametrize("fused", [None, True])
def test_a_gradient_that_is_not_finite_with_a_finite_loss(fused, tmp_path):
    loss = RootLoss()
    module, watch = fit(
        tmp_path,
        [batch(0), batch(1)],
        Plant(1, lambda module: setattr(loss, "at_zero", True)),
        metres=loss,
        fused=fused,
    )
    assert watch.state_dict()["skipped"] == [1]
    assert all(tensor.isfinite().all() for tensor in weights(module).values())
    incident = read_incident(tmp_path / "incidents/step_000001")
    assert incident.circumstances.loss == 0
    assert incident.findings.first_output is None
    assert incident.findings.first_gradient == "the prediction"


@pytest.mark.parametrize("fused", [None, True])
def test_a_loss_that_jumps(fused, tmp_path):
    loss = SiLogLoss()
    plant = Plant(24, lambda module: setattr(loss, "factor", 1000.0))
    back = Plant(25, lambda module: setattr(loss, "factor", 1.0))
    batches = [batch(seed % 3) for seed in range(27)]
    _, watch = fit(tmp_path, batches, plant, back, metres=loss, fused=fused)
    assert watch.state_dict()["skipped"] == [24]
    circumstances = read_incident(tmp_path / "incidents/step_000024").circumstances
    assert circumstances.loss > 100 * circumstances.median_loss
    assert "times the median" in circumstances.reason
    _, watch = fit(tmp_path / "off", batches, Plant(24, plant.change), metres=loss, watch=Watch(tmp_path, "skip", None))
    assert watch.state_dict()["skipped"] == []


def test_a_loss_that_stays_high_ends_the_run(tmp_path):
    loss = SiLogLoss()
    watch = Watch(tmp_path / "incidents", "skip", window=40, max_incidents=0)
    higher = Plant(20, lambda module: setattr(loss, "factor", 100.0))
    with pytest.raises(StoppedByWatchError, match="at step 24: 5 of the last 40 steps went wrong, this one because"):
        fit(tmp_path, [batch(seed % 3) for seed in range(30)], higher, metres=loss, watch=watch)


def test_too_many_skipped_end_the_run(tmp_path):
    bad = batch(9, DepthKind.DISPARITY, broken=True)
    watch = Watch(tmp_path / "incidents", "skip", window=20, max_incidents=1)
    with pytest.raises(StoppedByWatchError, match="3 of the last 20 steps went wrong"):
        fit(tmp_path, [batch(0), bad, batch(1), bad, batch(2), bad, batch(3)], watch=watch)
    assert [path.name for path in (tmp_path / "incidents").iterdir()] == ["step_000001"]


def scaled(scale):
    """fp16's loss scaling; the products themselves in bfloat16, which the CPU has."""
    plugin = MixedPrecision("bf16-mixed", "cpu")
    plugin.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return [plugin]


def test_an_overflow_that_the_scaler_handles_is_no_incident(tmp_path):
    class Steep(torch.nn.Module):
        def forward(self, prediction, target, mask):
            steep = 1e3 * prediction.mean()
            return steep - steep.detach() + 1

    plugins = scaled(2.0**126)
    _, watch = fit(tmp_path, [batch(0), batch(1)], metres=Steep(), plugins=plugins)
    assert plugins[0].scaler.get_scale() == 2.0**124
    assert watch.state_dict()["skipped"] == []
    assert not (tmp_path / "incidents").exists()


def test_what_the_scaler_cannot_explain_is(tmp_path):
    loss = RootLoss()
    loss.at_zero = True
    _, watch = fit(tmp_path, [batch(0), batch(1), batch(2)], metres=loss, plugins=scaled(2.0))
    assert watch.state_dict()["skipped"] == [1, 2]  # at a scale of 2 it might have been an overflow
    bad = batch(9, DepthKind.DISPARITY, broken=True)
    _, watch = fit(tmp_path / "loss", [batch(0), bad], plugins=scaled(256.0))
    assert watch.state_dict()["skipped"] == [1]
    assert read_incident(tmp_path / "loss/incidents/step_000001").circumstances.loss_scale == 256


def test_the_state_goes_through_a_checkpoint(tmp_path):
    _, watch = fit(tmp_path, [batch(0), batch(9, DepthKind.DISPARITY, broken=True), batch(1)])
    torch.save(watch.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = Watch(tmp_path / "incidents")
    other.load_state_dict(state)
    assert other.state_dict()["skipped"] == [1] and other.state_dict()["seen"] == 3
    assert other.state_dict()["history"].isfinite().tolist()[:4] == [True, False, True, False]
    shorter = Watch(tmp_path / "incidents", window=20)
    shorter.load_state_dict(state)
    assert shorter.state_dict()["seen"] == 2


def test_inspection_leaves_nothing_behind():
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny")
    network.eval()
    objective = Objective(SiLogLoss(), SiLogLoss(), AffineInvariantLoss(), "metric", 10.0)
    before, random = weights(DepthModule(network)), torch.get_rng_state()
    inspect_step(network, objective, [batch(0)])
    assert same(before, network.state_dict()) and torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters()) and not network.training


@pytest.mark.slow
def test_a_compiled_network_is_inspected_module_by_module():
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny")
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    network.compile(backend=backend)
    network.head.projects[1].weight.data[0] = torch.inf
    objective = Objective(SiLogLoss(), SiLogLoss(), AffineInvariantLoss(), "metric", 10.0)
    findings, _ = inspect_step(network, objective, [batch(0)])
    assert findings.first_output.startswith("the output of head.projects.1 (Conv2d)")
    assert not calls
    network(torch.zeros(1, 3, SIDE, SIDE))
    assert calls


def test_the_layer_of_a_block_where_infinities_begin_is_named():
    network = DepthAnythingV2("tiny")
    network.encoder.blocks[1].mlp.fc1.bias.data[0] = torch.inf
    objective = Objective(SiLogLoss(), SiLogLoss(), AffineInvariantLoss(), "metric", 10.0)
    findings, _ = inspect_step(network, objective, [batch(0)])
    assert findings.first_output.startswith("the output of encoder.blocks.1.mlp.fc1 (Linear)")


def test_gradient_norms_are_those_of_a_plain_backward_pass():
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny")
    objective = Objective(SiLogLoss(), SiLogLoss(), AffineInvariantLoss(), "metric", 10.0)
    findings, _ = inspect_step(network, objective, [batch(0), batch(1)], loss_scale=64.0)
    from depth_lightning.models import normalize

    for one in (batch(0), batch(1)):
        (objective(network(normalize(one.image)), one.target, one.mask, one.kind) / 2).backward()
    expected = {name: p.grad.norm().item() for name, p in network.named_parameters() if p.grad is not None}
    assert findings.gradient_norms == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("on_bad_step", "ignore", "skip or stop"),
        ("jump_factor", 0.5, "a number above 1"),
        ("jump_factor", math.nan, "a number above 1"),
        ("window", 3, "a whole number, 20 or above"),
        ("max_incidents", -1, "a whole number, 0 or above"),
        ("folder", None, "a path"),
    ],
)
def test_arguments_are_checked(name, value, expected, tmp_path):
    with pytest.raises(SettingError, match=rf"^{name} is {expected}, found {value!r}\."):
        Watch(**{"folder": tmp_path, name: value})
