"""What a protocol cannot score is refused before any work."""

import re

import cv2
import numpy as np
import pytest

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.train import train

TINY = ["experiment=rooms", "data=pairs", "data.image=rgb/*.png", "data.depth=depth/*.png", "data.depth_scale=1000"]


@pytest.fixture
def pairs(tmp_path):
    """Overrides for two images whose depth is 2 to 4 (metres)."""
    for kind, content in (("rgb", np.full((60, 80, 3), 99, np.uint8)), ("depth", np.arange(4800, dtype=np.uint16))):
        (tmp_path / kind).mkdir()
        for number in range(3):
            file = cv2.imencode(".png", content if kind == "rgb" else 2000 + content.reshape(60, 80) % 2000)[1]
            (tmp_path / kind / f"{number}.png").write_bytes(file.tobytes())
    return [*TINY, f"data.root={tmp_path}", "data.size=42", "data.batch_size=1", "data.num_workers=0", "report=false"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.kind=up_to_scale"],
            "protocol.alignment=none cannot score depth up to scale (data.kind=up_to_scale), whose scale must be "
            "fitted to each image. Use protocol=median_scaled.",
        ),
        (
            ["data.kind=up_to_scale", "model.output=relative", "loss=affine_invariant"],
            "A network with model.output=relative predicts disparity up to scale and shift, which "
            "protocol.alignment=none would score as metres. Use protocol=affine_disparity.",
        ),
        (
            ["data.kind=up_to_scale", "data.depth_scale=1", "protocol=median_scaled"],
            "No pixel of 1 validation images, such as rgb/0.png, is valid under this protocol (0.001 ≤ depth ≤ 10, "
            "crop none, alignment scale_ratio_of_medians, clipped): found depths from 2000 to 3999. Set "
            "protocol.min_depth=… and protocol.max_depth=…, or correct data.depth_scale.",
        ),
        (
            ["protocol.max_depth=1.5"],
            "No pixel of 1 validation images, such as rgb/0.png, is valid under this protocol ",
        ),
        (
            ["protocol=nyu_eigen"],
            "protocol.crop=nyu_eigen is defined for 480×640 ground truth, found 60×80. Use protocol.crop=none",
        ),
    ],
)
def test_a_protocol_that_can_score_nothing(overrides, message, pairs, compose_config, tmp_path):
    cfg = compose_config("train", [*pairs, "trainer.num_sanity_val_steps=0", *overrides], tmp_path / "run")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        train(cfg)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_is_refused_as_well(pairs, trained, compose_config, tmp_path):
    typed = [*pairs[1:-2], "data.kind=up_to_scale"]
    checkpoint = f"checkpoint={trained[0]}/checkpoints/best.ckpt"
    with pytest.raises(ValueError, match=r"^protocol\.alignment=none cannot score .* Use protocol=median_scaled\.$"):
        evaluate(compose_config("evaluate", [checkpoint, *typed], tmp_path / "run"), typed)


@pytest.mark.parametrize("kind", ["up_to_scale", "disparity"])
def test_what_can_be_scored_is_trained(kind, pairs, compose_config, tmp_path):
    overrides = ["debug=fast", f"data.kind={kind}", "protocol=median_scaled", "baseline=true"]
    assert train(compose_config("train", [*pairs, *overrides], tmp_path / "run")) > 0
