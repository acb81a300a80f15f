"""Score a network on DA-2K's point pairs: `depth-lightning evaluate data=da2k`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from depth_lightning.data.da2k import DA2K, PointPairSample, point_pair_loader
from depth_lightning.metrics.point_pairs import PairCounts, PointPairAccuracy
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.reporting.tables import write_csv, write_json
from depth_lightning.wording import counted

log = logging.getLogger(__name__)


class PairScore(NamedTuple):
    """The result of an evaluation on point pairs."""

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
        """This process's share of the samples, without padding or dropping any."""
        return point_pair_loader(self.data, self.num_workers, self.trainer.global_rank, self.trainer.world_size)

    def validation_step(self, sample: PointPairSample, index: int) -> None:
        """Compare the two points of each pair in the prediction, at the image's original size."""
        prediction = self.network(normalize(sample.image[None]))[:, None].float()
        prediction = F.interpolate(prediction, sample.size, mode="bilinear", align_corners=True)[0, 0]
        nearness = prediction if self.network.output == "relative" else -prediction
        self.accuracy.update(nearness, sample.nearer, sample.farther, sample.scene)

    def on_validation_epoch_end(self) -> None:
        """Combine the results of all processes."""
        metrics = {name: float(value) for name, value in self.accuracy.compute().items()}
        self.score = PairScore(metrics, self.accuracy.counts())
        self.accuracy.reset()


def score_point_pairs(trainer: lightning.Trainer, network: DepthAnythingV2, data: DA2K, num_workers: int) -> PairScore:
    """The network's accuracy over all pairs; every process must call it and gets the same result.

    Args:
        trainer: runs the validation.
        network: with its weights loaded.
        data: the point pairs.
        num_workers: workers that read the images.
    """
    log.info(f"DA-2K: {len(data)} images of {len(data.scenes)} scene types.")
    module = PointPairModule(network, data, num_workers)
    trainer.validate(module, verbose=False)
    assert module.score is not None
    return module.score


def report_point_pairs(run_dir: Path, title: str, subject: Mapping[str, Any], score: PairScore) -> None:
    """Print the table, and write metrics.json and table.csv into `run_dir`.

    Args:
        run_dir: of the evaluation.
        title: above the table.
        subject: plain values that identify the scored network.
        score: of the network.
    """
    pairs = sum(score.counts.pairs.values())
    content = {
        "metrics": score.metrics,
        "higher_is_better": dict.fromkeys(score.metrics, PointPairAccuracy.higher_is_better),
        "images": score.counts.images,
        "pairs": pairs,
        "pairs_by_scene": score.counts.pairs,
        "ties": score.counts.ties,
        **subject,
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
    images = counted(score.counts.images, "image")
    notes = [f"{images}. Only the order within a pair counts: no crop, range or alignment applies."]
    if score.counts.ties:
        ties = counted(score.counts.ties, "pair")
        notes.append(f"{ties} with the same prediction at both points (or NaN), which counts as wrong.")
    console = Console()
    console.print(f"\n{title}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    for note in [*notes, f"Written: {run_dir}/metrics.json, table.csv"]:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
