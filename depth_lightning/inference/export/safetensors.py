"""The authors' keys in a safetensors file."""

from depth_lightning.inference.export.weights import Weights


class Safetensors(Weights):
    """`model.safetensors`."""

    name = "safetensors"
    file = "model.safetensors"
    tags = ("safetensors",)
