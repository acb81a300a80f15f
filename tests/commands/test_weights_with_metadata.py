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


@pytest.mark.parametrize(
    ("model", "weights", "max_depth", "size"),
    [("tiny", "rooms_tiny", 10.0, 84), ("vits", "depth-anything/Depth-Anything-V2-Metric-Hypersim-Small", 20.0, 518)],
)
def test_what_is_known_of_a_name_holds_without_a_download(model, weights, max_depth, size, compose_config, monkeypatch):
    monkeypatch.delattr("depth_lightning.models.hub._download_file")
    overrides = ["input=photos", f"model={model}", f"model.weights={weights}"]
    cfg, _ = chosen_network(compose_config("predict", overrides), overrides, "predict")
    assert (cfg.model.max_depth, cfg.data.size) == (max_depth, size)
