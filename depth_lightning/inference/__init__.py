"""Prediction with a trained network: `load(…).predict("photo.jpg")`, for single images, folders and videos."""

from depth_lightning.inference.outputs import CloudOptions, Outputs
from depth_lightning.inference.point_cloud import Intrinsics, intrinsics_from_fov, point_cloud, unproject, write_ply
from depth_lightning.inference.predict import Prediction, Predictor, load
from depth_lightning.inference.stream import predict_stream, save_behind
from depth_lightning.inference.video import predict_video

__all__ = [
    "CloudOptions",
    "Intrinsics",
    "Outputs",
    "Prediction",
    "Predictor",
    "intrinsics_from_fov",
    "load",
    "point_cloud",
    "predict_stream",
    "predict_video",
    "save_behind",
    "unproject",
    "write_ply",
]
