"""Score a checkpoint or released weights: `depth-lightning evaluate`."""

import logging
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from omegaconf import DictConfig, OmegaConf

from depth_lightning.data import DepthDataModule
from depth_lightning.data.da2k import DA2K
from depth_lightning.evaluation.explain import Explain, Variant
from depth_lightning.evaluation.page_images import PageImages
from depth_lightning.evaluation.point_pairs import PairScore, report_point_pairs, score_point_pairs
from depth_lightning.evaluation.report import report
from depth_lightning.evaluation.report_page import report_page
from depth_lightning.evaluation.saved_predictions import SavedPredictions
from depth_lightning.evaluation.score import check_scorable, score
from depth_lightning.evaluation.summary import summarise
from depth_lightning.invocation import command_line
from depth_lightning.models import DepthAnythingV2
from depth_lightning.reporting.page import PageImage
from depth_lightning.reporting.panels import save_png
from depth_lightning.reporting.result import EvaluationResult
from depth_lightning.runs import objects
from depth_lightning.runs.checkpoint import chosen_network
from depth_lightning.runs.job import run_job
from depth_lightning.runs.options import check
from depth_lightning.runs.overrides import typed, typed_words
from depth_lightning.runs.record import subject
from depth_lightning.runs.weights import load_chosen
from depth_lightning.settings import SettingError
from depth_lightning.training import DepthModule
from depth_lightning.training.display.panels import draw_panels
from depth_lightning.training.display.progress import progress

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(lambda cfg: evaluate(cfg, typed_words()), cfg)


def evaluate(cfg: DictConfig, overrides: Sequence[str]) -> EvaluationResult | PairScore:
    """Score `cfg.checkpoint`, or `cfg.model` with the weights that were typed, or `cfg.predictions`.

    The report is in `cfg.run_dir`.

    Args:
        cfg: composed from conf/evaluate.yaml.
        overrides: as typed; they take precedence over the checkpoint's configuration.

    Raises:
        ValueError: neither a checkpoint nor weights were given, or the protocol does not suit the network.
    """
    if cfg.predictions is not None:
        return _evaluate_predictions(cfg, overrides)
    cfg, state = chosen_network(cfg, overrides, "evaluate")
    lightning.seed_everything(cfg.seed, verbose=False)
    if cfg.trainer.get("precision") == "auto":
        cfg.trainer.precision = "32-true"  # the same numbers on every device
    data = _open_data(cfg)  # before downloading weights, so that problems with the data show early
    network = objects.build_network(cfg.model, cfg.get("adapter"))
    load_chosen(network, cfg, state)
    if not cfg.compile:
        return _evaluate(cfg, network, data, overrides)
    # Freezing makes weights constants, which are packed and cast once. As an option of compile() it would only reach
    # the back end, and the front end would still pass them as arguments. In torch 2.11 to 2.15, the only other way is
    # an environment variable.
    with torch._inductor.config.patch(freezing=True):
        network.compile()
        return _evaluate(cfg, network, data, overrides)


def _open_data(cfg: DictConfig) -> DepthDataModule | DA2K:
    if objects.is_point_pairs(cfg.data):
        if cfg.split != "val":
            raise SettingError(
                "split", f"is for depth maps; DA-2K is one set of point pairs. Leave out split={cfg.split}."
            )
        pairs: DA2K = objects.dataset_of(cfg.data)(patch=objects.patch_size(cfg))
        return pairs
    data = objects.build_data(cfg, cfg.split)
    data.setup("validate")
    return data


def _evaluate(
    cfg: DictConfig, network: DepthAnythingV2, data: DepthDataModule | DA2K, overrides: Sequence[str]
) -> EvaluationResult | PairScore:
    title = f"checkpoint {cfg.checkpoint}" if cfg.checkpoint else f"{cfg.model.weights}"
    if isinstance(data, DA2K):
        return evaluate_point_pairs(cfg, network, data, title)
    return _score(cfg, DepthModule(network, objects.build_metrics(cfg)), data, title, overrides)


def _evaluate_predictions(cfg: DictConfig, overrides: Sequence[str]) -> EvaluationResult:
    if cfg.checkpoint is not None or "model.weights" in typed(overrides):
        raise SettingError(
            "predictions", "are scored in the place of a network: leave out checkpoint and model.weights."
        )
    check(cfg, "evaluate")
    data = _open_data(cfg)
    if isinstance(data, DA2K):
        raise SettingError("predictions", "are depth maps, and DA-2K has point pairs. Choose other data.")
    folder = Path(cfg.predictions).expanduser()
    module = SavedPredictions(folder, cfg.predictions_kind, cfg.predictions_scale, objects.build_metrics(cfg))
    module.check_complete(data.val_data.dataset.source)
    return _score(cfg, module, data, f"predictions {folder}, {module.kind}", overrides)


def _score(
    cfg: DictConfig, module: DepthModule, data: DepthDataModule, title: str, overrides: Sequence[str]
) -> EvaluationResult:
    run_dir = Path(cfg.run_dir)
    check_scorable(module, data)
    explain = Explain(module.metrics, relative=module.network.output == "relative") if cfg.explain else None
    pictures = PageImages() if cfg.report else None
    trainer = objects.build_trainer(cfg, callbacks=[part for part in (explain, pictures) if part], loggers=[])
    result = score(trainer, module, data, cfg.breakdowns)
    variants = explain.variants() if explain else None
    images = pictures.gathered() if pictures else None
    if trainer.is_global_zero:
        command = [*command_line("evaluate").split(), *overrides]
        report_evaluation(cfg, title, module, data, result, images, command, variants)
        if cfg.panels:
            picture = run_dir / "panels.png"
            save_png(picture, draw_panels(module, data.val_data, cfg.panels))
            log.info(f"Pictures: {picture}")
    return result


def evaluate_point_pairs(cfg: DictConfig, network: DepthAnythingV2, data: DA2K, title: str) -> PairScore:
    """Score the network on point pairs, and report it in `cfg.run_dir`."""
    if cfg.report:
        log.warning("report=true: there is no report page for point pairs, only their table.")
    trainer = objects.build_trainer(cfg, callbacks=[progress()], loggers=[])
    pair_score = score_point_pairs(trainer, network, data, objects.worker_count(cfg.data.num_workers))
    if trainer.is_global_zero:
        report_point_pairs(Path(cfg.run_dir), title, subject(cfg), pair_score)
    return pair_score


def report_evaluation(
    cfg: DictConfig,
    title: str,
    module: DepthModule,
    data: DepthDataModule,
    result: EvaluationResult,
    images: Sequence[PageImage] | None,
    command: Sequence[str],
    variants: Sequence[Variant] | None = None,
) -> None:
    """Print an evaluation, and write its files into `cfg.run_dir`, with a report page if there are images for it.

    Args:
        cfg: of the command, with the scored checkpoint.
        title: above the table.
        module: the scored module.
        data: on whose `eval_split` it was scored.
        result: the metrics.
        images: for the report page; None for no page.
        command: the words that were typed.
        variants: the same predictions under other protocols, if requested.

    Raises:
        ValueError: no image could be scored.
    """
    run_dir = Path(cfg.run_dir)
    summary = summarise(subject(cfg), result, module.metrics, data, cfg.baseline)
    report(run_dir, title, summary, result, variants)
    if images is not None:
        trained_in = Path(cfg.checkpoint).absolute().parent.parent if cfg.checkpoint else run_dir
        config = OmegaConf.to_yaml(OmegaConf.create(objects.plain(cfg)))
        protocol = module.metrics.protocol
        report_page(run_dir / "report.html", title, summary, result, protocol, images, trained_in, config, command)
