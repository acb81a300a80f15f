"""A rotation of the camera about its optical axis, which changes neither its intrinsics nor any depth."""

import cv2
import numpy as np

from depth_lightning.data.sparse import is_sparse, scattered
from depth_lightning.sample import DepthSample


def rotated(sample: DepthSample, angle_deg: float) -> DepthSample:
    """The sample as the camera would see it, turned about its optical axis: right becomes down at 90 degrees.

    The axis passes through the principal point, or for an unknown camera through the image's centre. Uncovered corners
    hold the image mirrored at its border, and no valid target.
    """
    height, width = sample.image.shape[:2]
    fx, fy, cx, cy = (1.0, 1.0, (width - 1) / 2, (height - 1) / 2)
    if not np.isnan(sample.intrinsics).any():
        fx, fy, cx, cy = sample.intrinsics.astype(np.float64)
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    turn = np.array([[cos, -sin * fx / fy], [sin * fy / fx, cos]])  # K R K⁻¹
    matrix = np.column_stack([turn, [cx, cy] - turn @ [cx, cy]])
    image = cv2.warpAffine(
        np.ascontiguousarray(sample.image),
        matrix,
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if is_sparse(sample.mask):
        row, column = np.nonzero(sample.mask)
        x, y = turn @ np.stack([column, row]) + matrix[:, 2:]
        target, mask = scattered(
            sample.target[row, column], np.rint(y).astype(int), np.rint(x).astype(int), (height, width), sample.kind
        )
    else:
        target, valid = (
            cv2.warpAffine(np.ascontiguousarray(array), matrix, (width, height), flags=cv2.INTER_NEAREST)
            for array in (sample.target, sample.mask.astype(np.uint8))
        )
        mask = valid.astype(bool)
    return sample._replace(image=image, target=target, mask=mask)
