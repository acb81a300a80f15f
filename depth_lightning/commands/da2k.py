"""Score a network on DA-2K's point pairs: `python evaluate.py data=da2k`."""

import logging
from pathlib import Path
from typing import NamedTuple

import lightning
import torch.nn.functional as F
from hydra.utils import get_object
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from depth_lightning.commands import objects
from depth_lightning.data.da2k import DA2K, PointPairSample, point_pair_loader
from depth_lightning.metrics.point_pairs import PairCounts, PointPairAccuracy
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.reporting.tables import write_csv, write_json
from depth_lightning.training.progress import progress

log = logging.getLogger(__name__)


class PairScore(NamedTuple):
    """What an evaluation on point pairs found."""

    metrics: dict[str, float]
    counts: PairCounts


class PointPairModule(lightning.LightningModule):
    """A network, the data and the metric, for `trainer.validate`."""

    def __init__(self, network: DepthAnythingV2, data: DA2K, num_workers: int = 0) -> None:
        super().__init__()
        self.network, self.data, self.num_workers = network, data, num_workers
        self.accuracy = PointPairAccuracy(data.scenes)
        self.score: PairScore | None = None
        """Of the last validation."""

    def val_dataloader(self) -> DataLoader[PointPairSample]:
        """This process's share, neither padded nor dropped."""
        return point_pair_loader(self.data, self.num_workers, self.trainer.global_rank, self.trainer.world_size)

    def validation_step(self, sample: PointPairSample, index: int) -> None:
        """Compare the two points of each pair in the prediction at the image's own size."""
        prediction = self.network(normalize(sample.image[None]))[:, None].float()
        prediction = F.interpolate(prediction, sample.size, mode="bilinear", align_corners=True)[0, 0]
        nearness = prediction if self.network.output == "relative" else -prediction
        self.accuracy.update(nearness, sample.nearer, sample.farther, sample.scene)

    def on_validation_epoch_end(self) -> None:
        """Put together what all processes found."""
        metrics = {name: float(value) for name, value in self.accuracy.compute().items()}
        self.score = PairScore(metrics, self.accuracy.counts())
        self.accuracy.reset()


def is_da2k(cfg: DictConfig) -> bool:
    """Whether `data` is point pairs, for which `evaluate_da2k` stands in for the depth metrics."""
    dataset = cfg.data.get("dataset")  # a mixture has none
    return dataset is not None and get_object(dataset._target_) is DA2K


def evaluate_da2k(cfg: DictConfig, network: DepthAnythingV2, data: DA2K, title: str) -> PairScore:
    """Score the network, and report the accuracy of each scene type in `cfg.run_dir`.

    Args:
        cfg: composed from conf/evaluate.yaml with data=da2k.
        network: with its weights.
        data: the point pairs.
        title: above the table.
    """
    module = PointPairModule(network, data, cfg.data.num_workers)
    trainer = objects.build_trainer(cfg, callbacks=[progress()], loggers=[])
    log.info(f"DA-2K: {len(data)} images of {len(data.scenes)} scene types.")
    trainer.validate(module, verbose=False)
    assert module.score is not None
    if trainer.is_global_zero:
        report(cfg, module.score, title)
    return module.score


def report(cfg: DictConfig, score: PairScore, title: str) -> None:
    """Print the table, and write metrics.json and table.csv into the run's folder."""
    run_dir = Path(cfg.run_dir)
    pairs = sum(score.counts.pairs.values())
    content = {
        "metrics": score.metrics,
        "higher_is_better": dict.fromkeys(score.metrics, PointPairAccuracy.higher_is_better),
        "images": score.counts.images,
        "pairs": pairs,
        "pairs_by_scene": score.counts.pairs,
        "ties": score.counts.ties,
        "model": {key: cfg.model[key] for key in ("encoder", "output", "max_depth")},
        "size": cfg.data.size,
        "checkpoint": cfg.checkpoint,
        "weights": None if cfg.checkpoint else cfg.model.weights,
    }
    write_json(run_dir / "metrics.json", content)
    write_csv(run_dir / "table.csv", {"model": score.metrics})
    table = Table("scene type")
    table.add_column("accuracy ↑", justify="right")
    table.add_column("pairs", justify="right")
    for scene, count in score.counts.pairs.items():
        table.add_row(scene, f"{score.metrics[f'accuracy_{scene}']:.4f}", str(count))
    table.add_section()
    table.add_row("mean of the above", f"{score.metrics['mean_scene_accuracy']:.4f}", "")
    table.add_row("all pairs", f"{score.metrics['accuracy']:.4f}", str(pairs))
    notes = [f"{score.counts.images} images. Only the order within a pair counts: no crop, range or alignment applies."]
    if score.counts.ties:
        notes.append(
            f"{score.counts.ties} pairs have the same prediction at both points (or NaN), which counts as wrong."
        )
    console = Console()
    console.print(f"\n{title}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    for note in [*notes, f"Written: {run_dir}/metrics.json, table.csv"]:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
