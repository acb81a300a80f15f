"""Depth from rectified stereo pairs by semi-global matching (Hirschmüller, TPAMI 2008), as OpenCV implements it.

It is no measurement: it is wrong at thin objects and reflections, and misses what one camera does not see.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from depth_lightning.atomic import write_bytes
from depth_lightning.data.files import read_image
from depth_lightning.data.reading import naming, read_text

OAKD = "stereodemo/datasets/oak-d"
"""Folder of the pairs, <name>_left.png and <name>_right.png, with stereodemo_calibration.json."""
BLOCK = 5
"""Side of the compared windows, in pixels."""


def match(left: np.ndarray, right: np.ndarray, disparities: int = 128, tolerance: float = 1.0) -> np.ndarray:
    """The disparity of the left image by semi-global matching, kept where the right image's disparity agrees.

    Args:
        left: (h, w, 3) uint8, rectified.
        right: the same, of the camera to its right.
        disparities: range of the search in pixels, a multiple of 16.
        tolerance: most that the two disparities of a point may differ, in pixels.

    Returns:
        (h, w) float32 in pixels; 0 where unknown.
    """
    forward = _search(left, right, disparities)
    # The right image's disparity is that of the mirrored pair.
    backward = _search(cv2.flip(right, 1), cv2.flip(left, 1), disparities)[:, ::-1]
    width = forward.shape[1]
    columns = np.arange(width) - np.rint(forward).astype(int)
    there = np.take_along_axis(backward, np.clip(columns, 0, width - 1), axis=1)
    agree = (forward > 0) & (there > 0) & (columns >= 0) & (np.abs(forward - there) <= tolerance)
    return np.where(agree, forward, np.float32(0))


def _search(image: np.ndarray, other: np.ndarray, disparities: int) -> np.ndarray:
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=disparities,
        blockSize=BLOCK,
        P1=8 * 3 * BLOCK**2,  # OpenCV's own recommendation
        P2=32 * 3 * BLOCK**2,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    # OpenCV searches only where the whole range lies within the image: with a margin, that is everywhere.
    padded = [cv2.copyMakeBorder(each, 0, 0, disparities, 0, cv2.BORDER_REPLICATE) for each in (image, other)]
    found = matcher.compute(*padded)[:, disparities:]
    return np.maximum(found.astype(np.float32) / cv2.StereoMatcher_DISP_SCALE, 0)


def write_oakd_depth(root: Path) -> None:
    """Write <name>_depth.png, 16 bits in millimetres, beside every <name>_left.png of the unpacked package stereodemo.

    Args:
        root: the folder that holds `OAKD`.

    Raises:
        OSError, ValueError: a file is missing or broken.
    """
    folder = root / OAKD
    path = folder / "stereodemo_calibration.json"
    with naming(path, "a calibration of stereodemo", "Download it again."):
        camera = json.loads(read_text(path))
        scale = camera["fx"] * camera["baseline_meters"] * 1000
        # Rectification leaves a border in the left images outside of (x, y, w, h), shares of their size.
        x, y, w, h = camera["left_image_rect_normalized"]
        size = (camera["height"], camera["width"])
        border = np.ones(size, bool)
        border[round(y * size[0]) : round((y + h) * size[0]), round(x * size[1]) : round((x + w) * size[1])] = False
    for left in sorted(folder.glob("*_left.png")):
        name = left.name.removesuffix("_left.png")
        disparity = match(read_image(left), read_image(folder / f"{name}_right.png"))
        disparity[border] = 0
        depth_mm = np.divide(scale, disparity, out=np.zeros_like(disparity), where=disparity > 0)
        encoded = cv2.imencode(".png", np.where(depth_mm < 2**16, np.rint(depth_mm), 0).astype(np.uint16))[1]
        write_bytes(folder / f"{name}_depth.png", encoded.tobytes())
