"""Deterministic weights for a Depth Anything V2 state dict, from parameter names alone.

The outputs beside this file were computed by the reference implementation with exactly these weights, so a network that
is loaded with them must reproduce the outputs. Keys and shapes are those of the published checkpoints.
"""

import zlib

import numpy as np


def parameter(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 array for one state-dict entry: the same for the same key and shape."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    values = rng.standard_normal(shape).astype(np.float32)
    if key.endswith("gamma"):  # LayerScale
        return 0.2 + 0.05 * values
    if ".norm" in key and key.endswith("weight"):
        return 1.0 + 0.1 * values
    if len(shape) >= 2 and key.endswith("weight"):
        fan_in = shape[0] * int(np.prod(shape[2:])) if "resize_layers" in key else int(np.prod(shape[1:]))
        return values * np.float32(1.2 / np.sqrt(fan_in))
    if key.endswith(("pos_embed", "cls_token", "mask_token")):
        return 0.5 * values
    return 0.05 * values  # biases


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth, textured float32 image in [0, 1], shape (3, height, width)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    out = np.zeros((3, height, width), np.float32)
    for channel in range(3):
        for _ in range(6):
            fy, fx, phase = rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08), rng.uniform(0, 6.28)
            out[channel] += np.sin(fy * y + fx * x + phase).astype(np.float32)
    out += 0.3 * rng.standard_normal(out.shape).astype(np.float32)
    low, high = out.min(), out.max()
    return ((out - low) / (high - low)).astype(np.float32)
