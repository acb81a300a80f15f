"""Prediction from images of any size, with depth at their own resolution.

The resampling is that of the evaluation: images are resized to the network's size with bicubic interpolation, and
predictions back to the image's size with bilinear interpolation and aligned corners.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depth_lightning import camera
from depth_lightning.data.files import read_image
from depth_lightning.data.reading import naming
from depth_lightning.data.transforms import check_size, network_image
from depth_lightning.inference.cameras import CameraOptions, photo_camera
from depth_lightning.inference.inputs import photo_reader, read_photo
from depth_lightning.invocation import command_line
from depth_lightning.models import DepthAnythingV2, find_provenance, load_weights, normalize, resolve_weights
from depth_lightning.models.adapters import of_run
from depth_lightning.models.checkpoints import load_run_state
from depth_lightning.models.depth_anything import Output
from depth_lightning.models.torch_files import NotARunError, read_run
from depth_lightning.settings import SettingError, boolean, one_of, text

NOTHING_TYPED: Final = CameraOptions()
Precision = Literal["float32", "bfloat16", "float16"]
_NETWORK_ARGUMENTS = ("encoder", "output", "max_depth", "features", "out_channels", "head", "taps")


class Prediction(NamedTuple):
    """The prediction for one image, at the image's resolution."""

    depth: np.ndarray
    """(h, w) float32: metres, or for a relative network, disparity up to scale and shift."""
    disagreement: np.ndarray | None
    """(h, w) float32, in the same unit: absolute difference from the mirrored image's prediction, if requested."""


class Predictor:
    """A network, and the size to which its input images are resized.

    Args:
        network: with its weights loaded.
        size: the length to which an image's shorter side is resized; use that of the training.
        device: "cuda", "cuda:1", "mps", "cpu"; by default the best available.
        precision: float32, or the autocast dtype.
        read: reads an image file as (h, w, 3) uint8 RGB.
        flip_average: predict the mean of the prediction and the mirrored image's, mirrored back.

    Raises:
        SettingError: an argument is out of range, or the device is not available.
    """

    def __init__(
        self,
        network: DepthAnythingV2,
        size: int = 518,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
        read: Callable[[Path], np.ndarray] = read_photo,
        flip_average: bool = False,
    ) -> None:
        self.precision: Precision = one_of("precision", precision, get_args(Precision))
        self.size = check_size("size", size)
        self.read = read
        self.flip_average = boolean("flip_average", flip_average)
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

    def predict(self, image: np.ndarray | str | Path, options: CameraOptions = NOTHING_TYPED) -> np.ndarray:
        """Depth at the image's resolution, (h, w) float32: metres, or for a relative network, disparity.

        Args:
            image: (h, w, 3) uint8 RGB, or the path of an image file.
            options: of the camera, such as CameraOptions(fov_deg=70), for a network trained with camera=canonical; by
                default as the photo's EXIF says.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not an image, or the array has another shape or dtype; the camera is not known.
        """
        if isinstance(image, np.ndarray):
            array, prepared = image, self.prepare(image)
            intrinsics = options.of(*array.shape[:2]).intrinsics
        else:
            array = self.read(Path(image))
            with naming(image, "an image that can be resized"):
                prepared = self.prepare(array)
            intrinsics = photo_camera(options, Path(image), array).intrinsics
        return self.predict_batch([prepared], [array.shape[:2]], intrinsics=[intrinsics])[0].depth

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Resize an (h, w, 3) uint8 RGB image to the network's input, (h', w', 3) float32, on the CPU."""
        if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
            raise ValueError(f"An image is (h, w, 3) uint8 RGB, found {image.shape} {image.dtype}.")
        return network_image(image, self.size, self.network.encoder.patch)

    @torch.inference_mode()
    def predict_batch(
        self,
        prepared: Sequence[np.ndarray],
        sizes: Sequence[tuple[int, ...]],
        disagreement: bool = False,
        intrinsics: Sequence[np.ndarray] | None = None,
    ) -> list[Prediction]:
        """Predict images that `prepare` resized to the same size.

        Args:
            prepared: the results of `prepare`.
            sizes: the original (h, w) of each image.
            disagreement: also predict the mirrored images.
            intrinsics: (4,) of each image in its original size; needed by a network trained with camera=canonical.

        Raises:
            ValueError: the network needs the cameras, and one is not known.
        """
        focal_px = self._focal_lengths(prepared, sizes, intrinsics)
        pixels = torch.from_numpy(np.stack(prepared)).to(self.device).permute(0, 3, 1, 2).contiguous()
        images = normalize(pixels)
        dtype = getattr(torch, self.precision)
        half = nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)
        with half:
            depths = self.network(images)
            mirrored = self.network(images.flip(-1)).flip(-1) if disagreement or self.flip_average else None
        if focal_px is not None:
            depths = self.network.in_metres(depths, focal_px)
            mirrored = None if mirrored is None else self.network.in_metres(mirrored, focal_px)
        predictions = []
        for index, size in enumerate(sizes):
            depth = _upsampled(depths[index], size)
            apart = None
            if mirrored is not None:
                other = _upsampled(mirrored[index], size)
                apart = (depth - other).abs().cpu().numpy() if disagreement else None
                depth = (depth + other) / 2 if self.flip_average else depth
            predictions.append(Prediction(depth.cpu().numpy(), apart))
        return predictions

    def check_camera(self, intrinsics: np.ndarray) -> None:
        """Refuse an unknown camera, if the network needs it.

        Raises:
            ValueError: it does.
        """
        if self.network.focal_px is not None and np.isnan(intrinsics).any():
            raise ValueError(
                "This network was trained with camera=canonical and needs the camera of every image, which neither the "
                "options nor EXIF say: type camera.fov_deg=…, degrees across the longer side (phones: about 70), or "
                "camera.intrinsics=[fx,fy,cx,cy]."
            )

    def _focal_lengths(
        self,
        prepared: Sequence[np.ndarray],
        sizes: Sequence[tuple[int, ...]],
        intrinsics: Sequence[np.ndarray] | None,
    ) -> Tensor | None:
        """The focal lengths of a canonical network's input, (b,) in pixels; None for other networks."""
        if self.network.focal_px is None:
            return None
        known = [camera.UNKNOWN] * len(prepared) if intrinsics is None else intrinsics
        for one in known:
            self.check_camera(one)
        scaled = [
            camera.rescaled(one, (height, width), image.shape[:2])
            for one, image, (height, width, *_) in zip(known, prepared, sizes, strict=True)
        ]
        return torch.from_numpy(camera.focal_length(np.stack(scaled))).float().to(self.device)

    def fingerprint(self) -> str:
        """Twelve hex digits of a hash over the weights, independent of the file name."""
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
    image_range: Sequence[float] | None = None,
) -> Predictor:
    """Load a network that is ready to predict.

    >>> model = load("outputs/train/…/checkpoints/best.ckpt")     # doctest: +SKIP
    >>> depth_m = model.predict("photo.jpg")                      # doctest: +SKIP

    Args:
        source: a checkpoint of train.py or an export of export.py, which contain all other arguments; or released
            weights, as a path or hub id.
        encoder: needed only for weights whose name and adjacent metadata do not identify it.
        output: likewise; "metric" by default.
        max_depth: likewise, in metres.
        size: by default that of the training, or 518.
        device: see `Predictor`.
        precision: see `Predictor`.
        image_range: of images of more than 8 bits, see `read_image`; by default that of the training.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read, does not fit the network, or does not identify its network.
    """
    path = Path(source).expanduser()
    if path.is_file():
        with suppress(NotARunError):
            network, data = _of_run(read_run(path), path)
            if image_range is not None:
                data["image_range"] = image_range
            return Predictor(network, size or int(data["size"]), device, precision, photo_reader(data))
    weights = resolve_weights(source)
    known = find_provenance(weights)
    if known is not None:
        encoder, output, size = encoder or known.encoder, output or known.output, size or known.size
        max_depth = max_depth if max_depth is not None else known.max_depth
    output = output or "metric"
    if encoder is None or (output == "metric" and max_depth is None):
        raise ValueError(
            f"{source} does not identify its network: use load(…, encoder='vits', output='metric', "
            "max_depth=20.0), or output='relative'."
        )
    head = "sigmoid" if known is None or output == "relative" else known.head
    declared: dict[str, Any] = {} if known is None else {"taps": known.taps, "focal_px": known.focal_px}
    network = DepthAnythingV2(encoder, output, max_depth if max_depth is not None else 1.0, head=head, **declared)
    load_weights(network, weights)
    read = partial(read_image, upright=True, image_range=image_range)
    return Predictor(network, size or 518, device, precision, read)


def _of_run(content: dict[str, Any], path: Path) -> tuple[DepthAnythingV2, dict[str, Any]]:
    """The network of a run, and `data` of its configuration."""
    model, data = content["config"]["model"], content["config"]["data"]
    used = {key: model[key] for key in _NETWORK_ARGUMENTS if key in model}
    if "focal_px" in model:  # camera=canonical, which writes a reference there
        used["focal_px"] = content["config"]["camera"]["focal_px"]
    adapter = content["config"].get("adapter") or {}
    read = (data.get(key) for key in ("size", "exif", "image_range"))
    if any(isinstance(value, str) and "${" in value for value in (*used.values(), *read, *adapter.values())):
        raise ValueError(
            f"{path} refers to other parts of its configuration. Use {command_line('predict')} checkpoint={path}"
        )
    own = f"{DepthAnythingV2.__module__.rpartition('.')[0]}.{DepthAnythingV2.__name__}"
    if model.get("_target_", own) != own:
        raise ValueError(f"{path} holds a {model['_target_']}: build it, load its weights, and use Predictor(network).")
    network = DepthAnythingV2(**used, adapter=of_run(content["config"]))
    load_run_state(network, content["state_dict"], path)
    return network, dict(data)


def _upsampled(depth: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(depth.float()[None, None], tuple(size), mode="bilinear", align_corners=True)[0, 0]


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
