"""Predict depth maps, pictures and point clouds for a user's images or video: `depth-lightning predict`."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from depth_lightning.inference import CloudOptions, Outputs, Predictor, predict_stream, predict_video, save_behind
from depth_lightning.inference.cameras import CameraOptions, PhotoCamera, photo_camera
from depth_lightning.inference.inputs import Input, find_images, is_video, open_video, photo_reader
from depth_lightning.inference.labels import Labels
from depth_lightning.inference.outputs import claim, record_cameras
from depth_lightning.inference.point_cloud import parse_intrinsics
from depth_lightning.inference.predict import NOTHING_TYPED
from depth_lightning.inference.stream import Failure, Photo, Predicted
from depth_lightning.inference.video import video_path
from depth_lightning.runs import objects
from depth_lightning.runs.checkpoint import chosen_network
from depth_lightning.runs.job import run_job
from depth_lightning.runs.overrides import typed_words
from depth_lightning.runs.weights import load_chosen
from depth_lightning.settings import SettingError, within
from depth_lightning.wording import counted

log = logging.getLogger(__name__)


class Summary(NamedTuple):
    """The result of a call."""

    predicted: int
    finished_before: int
    failures: list[Failure[Any]]


def run(cfg: DictConfig) -> None:
    """The entry point; exit status 1 if an image could not be read or saved."""
    summary = run_job(lambda cfg: predict(cfg, typed_words()), cfg, _kept)
    if summary is not None and summary.failures:
        sys.exit(1)


def _kept(cfg: DictConfig) -> str:
    return f"The files in {cfg.output} are complete; repeat the command to make the rest."


def predict(cfg: DictConfig, overrides: Sequence[str]) -> Summary:
    """Predict `cfg.input`, save the results into `cfg.output`, and log a summary.

    Args:
        cfg: composed from conf/predict.yaml.
        overrides: as typed; they take precedence over the checkpoint's configuration.

    Raises:
        OSError: nothing matches the input, or the output cannot be written to.
        ValueError: no input or no network was given, or the network cannot produce a requested output.
    """
    if cfg.input is None:
        raise ValueError("Nothing to predict: give input=… (an image, a folder, a glob, a list of paths, a video).")
    cfg, state = chosen_network(cfg, overrides, "predict")
    network = objects.build_network(cfg.model, cfg.get("adapter"))
    video = is_video(cfg.input)
    outputs = build_outputs(cfg, video, metric=network.output == "metric", max_depth=network.max_depth)
    options = camera_options(cfg)
    images: list[Input] = []
    if video:
        root = Path(cfg.input).expanduser()
        with open_video(root) as opened:
            total = opened.frames
    else:
        root, images = find_images(cfg.input, without=outputs.folder)
        total = len(images)
    predictor = Predictor(network, cfg.data.size, cfg.device, cfg.precision)
    load_chosen(network, cfg, state)
    read = photo_reader(objects.plain(cfg.data), [image.path for image in images])
    claim(
        outputs.folder,
        {
            "input": str(root.resolve()),
            "network": described(predictor),
            **read.keywords,
            **outputs.settings(),
            **({} if network.focal_px is None else {"camera": vars(options)}),
        },
        [video_path(root, outputs)] if video else _files(outputs, images),
    )
    start = time.perf_counter()
    with progress_bar(total) as advance:
        if video:
            predicted, failures = predict_video(predictor, root, outputs, cfg.batch_size, advance, options)
            summary = Summary(predicted, max(0, total - predicted - len(failures)), failures)
        else:
            summary = predict_images(predictor, images, outputs, cfg.batch_size, read, advance, options)
    report(summary, outputs.folder, time.perf_counter() - start, "frame" if video else "image")
    return summary


def predict_images(
    predictor: Predictor,
    images: Sequence[Input],
    outputs: Outputs | Labels,
    batch_size: int,
    read_photo: Callable[[Path], np.ndarray],
    done: Callable[[], None],
    options: CameraOptions = NOTHING_TYPED,
) -> Summary:
    """Save the missing files of every image; `done` is called after each image.

    The cameras are recorded where they matter: for clouds, and for a network trained with camera=canonical.
    """
    unfinished, missing_files, cameras = list[Input](), dict[str, Any](), dict[str, PhotoCamera]()
    matter = isinstance(outputs, Outputs) and ("cloud" in outputs.save or predictor.network.focal_px is not None)
    for image in images:
        changed = image.path.stat().st_mtime if image.path.is_file() else 0.0
        if missing := outputs.unfinished(image.name, changed):
            unfinished.append(image)
            missing_files[image.name] = missing
        else:
            done()

    def read(image: Input) -> Photo:
        pixels = read_photo(image.path)
        if not matter:
            return Photo(image.name, pixels)
        cameras[image.name] = photo_camera(options, image.path, pixels)
        return Photo(image.name, pixels, cameras[image.name])

    def save(result: Predicted) -> None:
        missing = missing_files[result.name]
        outputs.write(result.name, result.image, result.prediction, missing, intrinsics=result.camera.intrinsics)

    results = predict_stream(predictor, unfinished, read, batch_size=batch_size, disagreement=outputs.disagreement)
    try:
        with closing(results):
            failures = save_behind(results, save, done=done)
    finally:
        if cameras:
            record_cameras(outputs.folder, cameras)
    for source, count in Counter(camera.source for camera in cameras.values()).items():
        log.info(f"Camera of {counted(count, 'image')}: {source}.")
    return Summary(len(unfinished) - len(failures), len(images) - len(unfinished), failures)


def build_outputs(cfg: DictConfig, video: bool, metric: bool, max_depth: float) -> Outputs:
    """The outputs that `save` and its options request.

    Raises:
        ValueError: this input or network cannot produce an output, or an option for it is missing.
    """
    typed = objects.plain(cfg)
    cloud, save = typed["cloud"], typed["save"]
    if save is None:
        save = ["video"] if video else ["png", "colour"]
    if not isinstance(save, list):
        save = [save]
    if "video" in save and not video:
        raise ValueError(f"save=[video] needs a video as input, found {cfg.input}.")
    with within("cloud"):
        if cloud["intrinsics"] is not None:
            cloud["intrinsics"] = parse_intrinsics(cloud["intrinsics"])
        options = CloudOptions(**cloud)
    return Outputs(
        Path(cfg.output).expanduser(), save, metric, max_depth, cfg.png_scale, typed["range"], options, cfg.overwrite
    )


def camera_options(cfg: DictConfig) -> CameraOptions:
    """What is typed about the photos' cameras, as `camera` or, in a command that has it, as `cloud`.

    Raises:
        SettingError: an option is out of range, or two contradict.
    """
    own, cloud = objects.plain(cfg.camera), objects.plain(cfg.cloud) if "cloud" in cfg else None
    typed: dict[str, Any] = {key: own.get(key) for key in ("intrinsics", "size", "fov_deg", "default_fov_deg")}
    if cloud and (cloud["intrinsics"] is not None or cloud["fov_deg"] is not None):
        if typed["intrinsics"] is not None or typed["fov_deg"] is not None:
            raise SettingError("cloud", "and camera both say which camera it is. Type one of them.")
        size = cloud["calibrated_size"] and cloud["calibrated_size"][::-1]  # [width,height]
        typed |= {"intrinsics": cloud["intrinsics"], "size": size}
        with within("cloud"):
            return CameraOptions(
                **typed,
                cloud_fov_deg=cloud["fov_deg"],
                names=("cloud.intrinsics", "cloud.calibrated_size=[width,height]"),
            )
    with within("camera"):
        return CameraOptions(**typed)


def described(predictor: Predictor) -> dict[str, Any]:
    """What decides a network's predictions, its weights by their hash."""
    network = predictor.network
    return {
        "weights": predictor.fingerprint(),
        "encoder": network.encoder_name,
        "output": network.output,
        "max_depth": network.max_depth if predictor.metric else None,
        "size": predictor.size,
        "precision": predictor.precision,
    }


def _files(outputs: Outputs, images: Sequence[Input]) -> list[Path]:
    return [path for image in images for paths in outputs.files(image.name).values() for path in paths]


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; yields the function to call after each image."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stdout.isatty(), console=Console()) as bar:
        task = bar.add_task("", total=total or None, speed="")
        start, done = time.perf_counter(), 0

        def advance() -> None:
            nonlocal done
            done += 1
            bar.update(task, advance=1, speed=f"{done / (time.perf_counter() - start):.1f}/s")

        yield advance


def report(summary: Summary, folder: Path, seconds: float, what: str) -> None:
    """Log what was done and what failed; `what` names an image."""
    before = f", {summary.finished_before} finished before" if summary.finished_before else ""
    speed = f" ({summary.predicted / seconds:.1f} per second)" if summary.predicted else ""
    log.info(f"{counted(summary.predicted, what)} predicted{speed}{before}. Written: {folder}")
    for failure in summary.failures:
        log.error(f"Skipped: {_reason(failure)}")
    if summary.failures:
        log.error(f"{counted(len(summary.failures), what)} could not be predicted.")


def _reason(failure: Failure[Any]) -> str:
    item = failure.item
    path = str(item.path) if isinstance(item, Input) else str(item)
    return str(failure.reason) if path in str(failure.reason) else f"{path}: {failure.reason}"
