"""Label images with a teacher's disparity, to train a student on them: `depth-lightning label`."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from omegaconf import DictConfig

from depth_lightning.atomic import write_bytes
from depth_lightning.commands.predict import Summary, described, predict_images, progress_bar, report
from depth_lightning.data.object_store import ObjectStore
from depth_lightning.data.shard_format import FORMAT, INDEX, Split, read_index
from depth_lightning.data.shards import DepthShards
from depth_lightning.inference import Predictor
from depth_lightning.inference.inputs import Input, find_images, is_video, photo_reader
from depth_lightning.inference.labels import MANIFEST, RECORD, Labels
from depth_lightning.inference.outputs import claim
from depth_lightning.invocation import command_line
from depth_lightning.runs import objects
from depth_lightning.runs.checkpoint import chosen_network
from depth_lightning.runs.job import run_job
from depth_lightning.runs.overrides import typed_words
from depth_lightning.runs.processes import own_device, own_share
from depth_lightning.runs.weights import load_chosen
from depth_lightning.wording import counted

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """The entry point; exit status 1 if an image could not be labelled."""
    summary = run_job(lambda cfg: label(cfg, typed_words()), cfg, _kept)
    if summary is not None and summary.failures:
        sys.exit(1)


def _kept(cfg: DictConfig) -> str:
    return f"The labels in {cfg.output} are complete; repeat the command to make the rest, and {MANIFEST}."


def label(cfg: DictConfig, overrides: Sequence[str]) -> Summary:
    """Label the images of `cfg.input` in `cfg.output`, where labels of another teacher are refused.

    Of several processes (see `own_share`), each labels its share, and each writes the table when it is done.

    Args:
        cfg: composed from conf/label.yaml.
        overrides: as typed; they take precedence over the checkpoint's configuration.

    Raises:
        OSError: nothing matches the input, or the output cannot be written to.
        ValueError: no input or no network was given; or the folder holds labels made otherwise.
    """
    if cfg.input is None:
        raise ValueError("Nothing to label: give input=… (an image, a folder, a glob, a list of paths, packed shards).")
    if is_video(cfg.input):
        raise ValueError(f"input={cfg.input} is a video. Labels are of images: save its frames as files first.")
    cfg, state = chosen_network(cfg, overrides, "label")
    network = objects.build_network(cfg.model, cfg.get("adapter"))
    network.focal_px = None  # labels are disparity up to scale, whatever the camera
    output, sky = Path(cfg.output).expanduser(), cfg.sky and Path(cfg.sky).expanduser()
    labels = Labels(output, network.output == "metric", cfg.format, cfg.max_disagreement, sky)
    device = cfg.device or own_device()
    predictor = Predictor(network, cfg.data.size, device, cfg.precision, flip_average=cfg.flip_average)
    load_chosen(network, cfg, state)
    read: Callable[[Path], np.ndarray]
    if _is_packed(packed := ObjectStore(cfg.input)):
        source, images, read, read_as = cfg.input, *_unpacked(packed, output / "images"), {}
    else:
        root, images = find_images(cfg.input, without=output)
        read = photos = photo_reader(objects.plain(cfg.data), [image.path for image in images])
        source, read_as = str(root.resolve()), photos.keywords
    teacher = {**described(predictor), "flip_average": predictor.flip_average}
    settings = {"input": source, "teacher": teacher, **read_as, **labels.settings()}
    claim(output, settings, (labels.file(image.name) for image in images), RECORD)
    number, count = own_share()
    own, start = images[number::count], time.perf_counter()
    with progress_bar(len(own)) as advance:
        summary = predict_images(predictor, own, labels, cfg.batch_size, read, done=advance)
    report(summary, output, time.perf_counter() - start, "image")
    there = labels.write_manifest(images)
    log.info(f"{output / MANIFEST} lists {there} of {counted(len(images), 'image')}.")
    if there == len(images) - len(summary.failures):
        log.info(f"To train on it: {command_line('train')} experiment=student data.manifest={output / MANIFEST}")
    return summary


def _is_packed(store: ObjectStore) -> bool:
    """Whether these are shards; a folder of photos may have an index.json of its own."""
    return store.remote or (store.has(INDEX) and f'"{FORMAT}"' in store.read_text(INDEX))


def _unpacked(packed: ObjectStore, folder: Path) -> tuple[list[Input], Callable[[Path], np.ndarray]]:
    """The images of packed samples, and a function that reads one and saves it, since labels are of image files."""
    places: dict[Path, tuple[DepthShards, int]] = {}
    images = []
    splits = read_index(packed.read_text(INDEX), f"{packed.root}/{INDEX}")
    for split in [split for split in get_args(Split) if splits.get(split)]:
        shards = DepthShards(packed.root, split)
        for index in range(len(shards)):
            name = f"{split}/{index:06d}"
            images.append(Input(name, folder / f"{name}.png"))
            places[images[-1].path] = (shards, index)
    return images, partial(_save_image, places)


def _save_image(places: dict[Path, tuple[DepthShards, int]], path: Path) -> np.ndarray:
    shards, index = places[path]
    image = shards[index].image
    write_bytes(path, cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    return image
