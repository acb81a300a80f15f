"""A frozen encoder beside a run: not trained, not saved, not in DDP's buckets."""

import csv

import pytest
import torch

from depth_lightning.commands.train import train
from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.models import DepthAnythingV2, normalize, save_weights
from depth_lightning.models.checkpoints import load_run_state
from depth_lightning.runs import objects
from depth_lightning.sample import DepthKind
from depth_lightning.settings import SettingError
from depth_lightning.training import DepthModule, Objective
from depth_lightning.training.alignment import FeatureAlignment


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files with the weights of a tiny and of a vits network."""
    folder = tmp_path_factory.mktemp("weights")
    for number, encoder in enumerate(("tiny", "vits")):
        torch.manual_seed(number)
        save_weights(DepthAnythingV2(encoder, "relative"), folder / f"{encoder}.pth")
    return folder


def _objective(alignment):
    return Objective(SiLogLoss(), SiLogLoss(1.0), AffineInvariantLoss(), "relative", alignment=alignment)


def test_the_frozen_encoder_is_no_part_of_the_module(weights):
    network = DepthAnythingV2("tiny", "relative")
    own = len(list(network.parameters()))
    same = DepthModule(network, objective=_objective(FeatureAlignment("tiny", "tiny", str(weights / "tiny.pth"))))
    assert len(list(same.parameters())) == own and all(key.startswith("network.") for key in same.state_dict())
    other = DepthModule(network, objective=_objective(FeatureAlignment("tiny", "vits", str(weights / "vits.pth"))))
    added = [name for name, _ in other.named_parameters() if not name.startswith("network.")]
    assert added == [f"objective.alignment.loss.projector.{name}" for name in ("weight", "bias")]
    # What DDP builds its buckets from.
    assert sum(p.numel() for p in other.parameters()) - sum(p.numel() for p in network.parameters()) == 193 * 384


def test_features_are_those_of_both_encoders_and_the_loss_is_weighted(weights):
    torch.manual_seed(3)
    network, image = DepthAnythingV2("tiny", "relative"), normalize(torch.rand(2, 3, 28, 42))
    alignment = FeatureAlignment("tiny", "tiny", str(weights / "tiny.pth"), weight=0.5)
    alignment.load()
    frozen = DepthAnythingV2("tiny", "relative")
    frozen.load_state_dict(alignment._frozen().state_dict())
    prediction, value = _objective(alignment).predict(network, image)
    torch.testing.assert_close(prediction, network(image))
    expected = 0.5 * alignment.loss(network.encoder(image)[-1][:, 1:], frozen.encoder(image)[-1][:, 1:])
    assert value.item() == pytest.approx(expected.item()) and value > 0.01
    value.backward()
    assert all(p.grad is None for p in alignment._frozen().parameters())
    _, before = _objective(alignment).predict(alignment._frozen(), image)
    assert before == 0, "the frozen encoder itself agrees with itself"


def test_it_runs_in_the_training_precision(weights):
    alignment = FeatureAlignment("tiny", "tiny", str(weights / "tiny.pth"))
    seen = []
    alignment._frozen().encoder.blocks[0].register_forward_hook(
        lambda module, inputs, output: seen.append((module.mlp.fc1(inputs[0]).dtype, torch.is_grad_enabled()))
    )
    with torch.autocast("cpu", torch.bfloat16):
        _objective(alignment).predict(DepthAnythingV2("tiny", "relative"), torch.rand(1, 3, 28, 28))
    assert seen == [(torch.bfloat16, False)]


def test_the_terms_add_up_to_the_loss():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.rand(2, 3, 16, 16, generator=generator) + 0.5
    mask = torch.rand(3, 16, 16, generator=generator) < 0.8
    kinds = [DepthKind.METRES, DepthKind.DISPARITY, DepthKind.DISPARITY]
    objective = _objective(None)
    loss = objective.weighed(objective.by_kind(prediction, target, mask, kinds), kinds, torch.tensor(0.25))
    assert loss.terms.keys() == {"l1", "gradient", "alignment"} and loss.terms["alignment"] == 0.25
    assert sum(term.item() for term in loss.terms.values()) == pytest.approx(loss.value.item(), rel=1e-6)
    alone = AffineInvariantLoss(gradient_weight=0)(prediction[1:], target[1:], mask[1:])
    first = AffineInvariantLoss(gradient_weight=0)(prediction[:1], 1 / target[:1], mask[:1])
    assert loss.terms["l1"].item() == pytest.approx(((first + 2 * alone) / 3).item(), rel=1e-5)


def test_a_run_logs_the_terms_saves_the_projector_alone(compose_config, small, weights, tmp_path):
    given = [*small, "loss=student", "model.output=relative", "protocol=affine_disparity", "report=false"]
    given += [
        "trainer.max_epochs=1",
        "loss.alignment.encoder=vits",
        f"loss.alignment.weights={weights}/vits.pth",
        "self_check=false",
    ]
    train(compose_config("train", given, tmp_path / "run"))
    content = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    projector = "objective.alignment.loss.projector.weight"
    assert {key for key in content["state_dict"] if not key.startswith("network.")} == {
        projector, projector.replace("weight", "bias")
    }  # fmt: skip
    load_run_state(DepthAnythingV2("tiny", "relative"), content["state_dict"], "last.ckpt")
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["train/loss"])
    terms = [float(row[f"train/loss_{name}"]) for name in ("l1", "gradient", "alignment")]
    assert sum(terms) == pytest.approx(float(row["train/loss"]), rel=1e-5)


def test_nothing_to_align_to_is_refused(compose_config, small):
    given = [*small, "loss=student", "model.output=relative"]
    cfg = compose_config("train", given)
    with pytest.raises(SettingError, match=r"^model\.weights is missing: random features"):
        objects.build_module(cfg, objects.build_network(cfg.model))


def test_encoders_of_other_patches_are_refused():
    with pytest.raises(SettingError, match=r"^encoder has patches of 16 pixels, and tiny of 14: choose one of 14\.$"):
        FeatureAlignment("tiny", "dinov3_vits", "dinov3.pth")
