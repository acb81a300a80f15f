"""A network that takes images as they are and gives depth at their resolution.

The arithmetic is the evaluation's: the image bicubic to the network's size, the prediction bilinear with aligned
corners back to the image's.
"""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depth_lightning.data.reading import naming
from depth_lightning.data.transforms import check_size, network_image
from depth_lightning.inference.inputs import read_photo
from depth_lightning.models import DepthAnythingV2, find_provenance, load_weights, normalize, resolve_weights
from depth_lightning.models.checkpoints import load_run_state
from depth_lightning.models.depth_anything import Output
from depth_lightning.models.torch_files import NotARunError, read_run
from depth_lightning.settings import SettingError, one_of, text

Precision = Literal["float32", "bfloat16", "float16"]
_NETWORK_ARGUMENTS = ("encoder", "output", "max_depth", "features", "out_channels")


class Prediction(NamedTuple):
    """What a network says of one image, at the image's resolution."""

    depth: np.ndarray
    """(h, w) float32: metres, or of a relative network, disparity up to scale and shift."""
    disagreement: np.ndarray | None
    """(h, w) float32, in the same unit: how far the mirrored image's prediction is from it; None if not asked for."""


class Predictor:
    """A network with the size at which it sees images.

    Args:
        network: with its weights.
        size: what the shorter side of an image is resized to; that of its training.
        device: "cuda", "cuda:1", "mps", "cpu"; by default the best there is.
        precision: float32, or what the network's products are computed in.

    Raises:
        SettingError: an argument is out of range, or there is no such device here.
    """

    def __init__(
        self,
        network: DepthAnythingV2,
        size: int = 518,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.precision: Precision = one_of("precision", precision, get_args(Precision))
        self.size = check_size("size", size)
        if device is not None and not isinstance(device, torch.device):
            device = text("device", device, "cuda, cuda:1, mps or cpu")
        try:
            self.device = torch.device(device) if device is not None else _best_device()
            self.network = network.eval().to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise SettingError("device", f"{device} is not available: {str(error).splitlines()[0]}") from error

    @property
    def metric(self) -> bool:
        """Whether predictions are metres."""
        return self.network.output == "metric"

    def predict(self, image: np.ndarray | str | Path) -> np.ndarray:
        """Depth at the image's resolution, (h, w) float32: metres, or of a relative network, disparity.

        Args:
            image: (h, w, 3) uint8 RGB, or the path of an image.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is no image, or the array has another shape or dtype.
        """
        if isinstance(image, np.ndarray):
            array, prepared = image, self.prepare(image)
        else:
            array = read_photo(Path(image))
            with naming(image, "an image that can be resized"):
                prepared = self.prepare(array)
        return self.predict_batch([prepared], [array.shape[:2]])[0].depth

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """An (h, w, 3) uint8 RGB image as the network sees it: (h', w', 3) float32; no device is used."""
        if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
            raise ValueError(f"An image is (h, w, 3) uint8 RGB, found {image.shape} {image.dtype}.")
        return network_image(image, self.size)

    @torch.inference_mode()
    def predict_batch(
        self, prepared: Sequence[np.ndarray], sizes: Sequence[tuple[int, ...]], disagreement: bool = False
    ) -> list[Prediction]:
        """Predict images that `prepare` brought to one size.

        Args:
            prepared: what `prepare` gave.
            sizes: (h, w) of each image before.
            disagreement: also predict the mirrored images.
        """
        pixels = torch.from_numpy(np.stack(prepared).transpose(0, 3, 1, 2).copy()).to(self.device)
        images = normalize(pixels)
        dtype = getattr(torch, self.precision)
        half = nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)
        with half:
            depths = self.network(images)
            mirrored = self.network(images.flip(-1)).flip(-1) if disagreement else None
        predictions = []
        for index, size in enumerate(sizes):
            depth = _upsampled(depths[index], size)
            apart = None if mirrored is None else (depth - _upsampled(mirrored[index], size)).abs()
            predictions.append(Prediction(depth.cpu().numpy(), None if apart is None else apart.cpu().numpy()))
        return predictions

    def fingerprint(self) -> str:
        """Twelve hex digits of the weights: the same file under another name has the same."""
        digest = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]


def load(
    source: str | Path,
    encoder: str | None = None,
    output: Output | None = None,
    max_depth: float | None = None,
    size: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
) -> Predictor:
    """A network that is ready to predict.

    >>> model = load("outputs/train/…/checkpoints/best.ckpt")     # doctest: +SKIP
    >>> depth_m = model.predict("photo.jpg")                      # doctest: +SKIP

    Args:
        source: a checkpoint of train.py or what export.py made of it, which know the rest; or released weights, a path
            or a hub id.
        encoder: of weights that do not tell by their name or the metadata beside them.
        output: likewise; "metric" by default.
        max_depth: likewise, in metres.
        size: by default the training's, or 518.
        device: see `Predictor`.
        precision: see `Predictor`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, does not fit, or does not tell what it holds.
    """
    path = Path(source).expanduser()
    if path.is_file():
        with suppress(NotARunError):
            network, trained_size = _of_run(read_run(path), path)
            return Predictor(network, size or trained_size, device, precision)
    weights = resolve_weights(source)
    known = find_provenance(weights)
    if known is not None:
        encoder, output, size = encoder or known.encoder, output or known.output, size or known.size
        max_depth = max_depth if max_depth is not None else known.max_depth
    output = output or "metric"
    if encoder is None or (output == "metric" and max_depth is None):
        raise ValueError(
            f"{source} does not tell which network it is for: give load(…, encoder='vits', output='metric', "
            "max_depth=20.0), or output='relative'."
        )
    network = DepthAnythingV2(encoder, output, max_depth if max_depth is not None else 1.0)
    load_weights(network, weights)
    return Predictor(network, size or 518, device, precision)


def _of_run(content: dict[str, Any], path: Path) -> tuple[DepthAnythingV2, int]:
    model, size = content["config"]["model"], content["config"]["data"]["size"]
    used = {key: model[key] for key in _NETWORK_ARGUMENTS if key in model}
    if any(isinstance(value, str) and "${" in value for value in (*used.values(), size)):
        raise ValueError(
            f"{path} refers to other parts of its configuration: predict with predict.py checkpoint={path}"
        )
    own = f"{DepthAnythingV2.__module__.rpartition('.')[0]}.{DepthAnythingV2.__name__}"
    if model.get("_target_", own) != own:
        raise ValueError(f"{path} holds a {model['_target_']}: build it, load its weights, and use Predictor(network).")
    network = DepthAnythingV2(**used)
    load_run_state(network, content["state_dict"], path)
    return network, int(size)


def _upsampled(depth: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(depth.float()[None, None], tuple(size), mode="bilinear", align_corners=True)[0, 0]


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
