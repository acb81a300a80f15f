"""The doctor goes on where a sample cannot be read or is none."""

import os

import cv2
import numpy as np

from depth_lightning.data import DepthEncoding, DepthPairs
from depth_lightning.data.diagnosis.facts import Facts, Unreadable, examine
from depth_lightning.sample import DepthKind, DepthSample


def test_what_cannot_be_read_is_listed(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"i{number}.png"), np.full((28, 42, 3), 50 * number, np.uint8))
        cv2.imwrite(str(tmp_path / f"d{number}.png"), np.full((28, 42), 2000, np.uint16))
    rows = [f"i{number}.png,d{number}.png,{'val' if number == 2 else 'train'}" for number in range(3)]
    (tmp_path / "m.csv").write_text("\n".join(["image,depth,split", *rows]))
    data = DepthPairs("train", manifest=tmp_path / "m.csv", encoding=DepthEncoding(depth_scale=1000))
    (tmp_path / "i0.png").unlink()
    os.mkfifo(tmp_path / "i0.png")
    found = examine(data, 0, detailed=True)
    assert isinstance(found, Unreadable)
    assert found.reason == f"{tmp_path}/i0.png: expected a file, found a FIFO of that name. Put the file in its place."
    assert isinstance(examine(data, 1, detailed=True), Facts)


def test_what_is_no_sample_is_listed():
    target = np.full((28, 42), np.nan, np.float32)
    source = [DepthSample(np.zeros((28, 42, 3), np.uint8), target, ~np.isnan(target), DepthKind.METRES, "a")]
    found = examine(source, 0, detailed=True)
    assert isinstance(found, Unreadable) and "a: expected finite values" in found.reason
