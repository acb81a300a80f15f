"""The recipes for one's own data train, on rendered rooms and from a tiny network."""

import pytest
import torch

from depth_lightning.commands.train import train
from depth_lightning.models import DepthAnythingV2, save_weights

ROOMS = ("data.train_images=8", "data.val_images=3", "data.size=42", "data.batch_size=4", "data.eval_batch_size=2")
SHORT = ("trainer=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1", "callbacks.panels.images=1")


@pytest.mark.parametrize(
    "recipe, more, learning, rates",
    [
        ("finetune_small", (), 1.0, 10),  # the head's, those of eight blocks, and that of patches and positions
        ("finetune_small", ("model.freeze_encoder=true", "optimizer.layer_decay=null"), 0.2, 1),
        ("finetune_domain", (), 1.0, 2),
    ],
)
def test_a_recipe_trains(recipe, more, learning, rates, compose_config, tmp_path):
    torch.manual_seed(0)
    save_weights(DepthAnythingV2("tiny", max_depth=20.0), tmp_path / "start.pth")
    start = (f"experiment={recipe}", "model=tiny", "data=rooms", f"data.root={tmp_path}/rooms", "report=false")
    # The weights are random, which the self-check would find.
    own = (*start, *ROOMS, *SHORT, f"model.weights={tmp_path}/start.pth", "self_check=false", *more)
    assert train(compose_config("train", own, tmp_path / "run")) > 0
    content = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert "current_model_state" in content, "the average is kept"
    moving = sum(state["exp_avg"].numel() for state in content["optimizer_states"][0]["state"].values())
    total = sum(p.numel() for p in DepthAnythingV2("tiny").parameters())
    assert learning - 0.05 < moving / total <= learning
    assert len({group["initial_lr"] for group in content["optimizer_states"][0]["param_groups"]}) == rates
