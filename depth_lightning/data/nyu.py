"""NYU Depth V2 as it is found on disks: the h5 release, the labelled .mat, and the PNG release with a list file.

Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012.
"""

from pathlib import Path

import h5py
import numpy as np


def read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one frame of the h5 release: `rgb` (3, h, w) uint8 and `depth` (h, w) floating point.

    Returns:
        The image (h, w, 3) uint8 and the depth (h, w) float32, as stored: 0 in holes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file cut short or not HDF5, a missing data set, a wrong shape or dtype.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No h5 file at {path}.")
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in ("rgb", "depth") if name not in file]
            if missing:
                raise ValueError(
                    f"{path}: expected the data sets 'rgb' and 'depth', found {sorted(file)}. "
                    "Is this a file of the NYU Depth V2 h5 release?"
                )
            rgb, depth = np.asarray(file["rgb"]), np.asarray(file["depth"])
    except PermissionError:
        raise
    except OSError as error:
        raise ValueError(
            f"{path}: expected an HDF5 file, found one that is cut short or damaged ({error}). Copy it again."
        ) from error
    if rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"{path}: expected 'rgb' as (3, h, w) uint8, found {rgb.shape} {rgb.dtype}.")
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
        raise ValueError(
            f"{path}: expected 'depth' as (h, w) float32 in metres, found {depth.shape} {depth.dtype}."
        )
    if rgb.shape[1:] != depth.shape:
        raise ValueError(
            f"{path}: expected image and depth of one size (h, w), found {rgb.shape[1:]} and {depth.shape}."
        )
    return np.ascontiguousarray(rgb.transpose(1, 2, 0)), depth.astype(np.float32, copy=False)
