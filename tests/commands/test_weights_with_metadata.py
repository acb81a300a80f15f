import pytest

from depth_lightning.models import DepthAnythingV2, save_weights
from depth_lightning.runs.checkpoint import chosen_network


@pytest.mark.parametrize(
    ("typed", "max_depth", "size"),
    [([], 42.0, 140), (["model.max_depth=7"], 7.0, 140), (["data.size=70"], 42.0, 70)],
)
def test_what_stands_beside_the_weights_holds_unless_typed(typed, max_depth, size, compose_config, tmp_path):
    path = tmp_path / "mine.pth"
    save_weights(DepthAnythingV2("tiny", max_depth=42.0), path, metadata={"size": 140})
    overrides = ["input=photos", "model=tiny", f"model.weights={path}", *typed]
    cfg, state = chosen_network(compose_config("predict", overrides), overrides, "predict")
    assert state is None
    assert (cfg.model.max_depth, cfg.data.size) == (max_depth, size)
