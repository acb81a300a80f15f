"""Score a checkpoint or released weights: `python evaluate.py`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from depth_lightning.commands import objects
from depth_lightning.commands.breakdowns import ScoreParts, report_breakdowns
from depth_lightning.commands.da2k import PairScore, evaluate_da2k, is_da2k
from depth_lightning.commands.evaluation_summary import summarise
from depth_lightning.commands.explain import Explain, Variant, as_rows, report_variants
from depth_lightning.commands.job import run_job
from depth_lightning.commands.report_page import report_page
from depth_lightning.commands.run_checkpoint import chosen_network
from depth_lightning.data import DepthDataModule
from depth_lightning.data.da2k import DA2K
from depth_lightning.inference.predict import load_run_state
from depth_lightning.metrics import Breakdowns, DepthMetrics, Intervals, PerImageMetrics, group_rows
from depth_lightning.models import DepthAnythingV2
from depth_lightning.reporting.page import PageImages
from depth_lightning.reporting.panels import save_png
from depth_lightning.reporting.result import EvaluationResult
from depth_lightning.reporting.tables import print_table, write_csv, write_json, write_parquet
from depth_lightning.training import DepthModule, ValidationTables
from depth_lightning.training.callbacks import count, draw_panels

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(lambda cfg: evaluate(cfg, list(HydraConfig.get().overrides.task)), cfg)


def evaluate(cfg: DictConfig, overrides: Sequence[str]) -> EvaluationResult | PairScore:
    """Score `cfg.checkpoint`, or `cfg.model` with the weights that were typed, and report it in `cfg.run_dir`.

    Args:
        cfg: composed from conf/evaluate.yaml.
        overrides: what was typed, which wins over what the checkpoint says of itself.

    Raises:
        ValueError: neither a checkpoint nor weights were given, or the protocol does not go with the network.
    """
    cfg, state = chosen_network(cfg, overrides, "evaluate")
    lightning.seed_everything(count("seed", cfg.seed, least=0), verbose=False)
    data = _open_data(cfg)  # before weights are fetched: what is wrong with the data is soon said
    network = objects.build_network(cfg.model)
    if state is not None:
        load_run_state(network, state, cfg.checkpoint)
    else:
        objects.start_weights(network, cfg.model)
    if not cfg.compile:
        return _evaluate(cfg, network, data, overrides)
    # Weights are constants: packed, and cast, once. As an option of compile() this would reach the back end alone, and
    # the front end would still hand them in as arguments.
    with torch._inductor.config.patch(freezing=True):
        network.compile()
        return _evaluate(cfg, network, data, overrides)


def _open_data(cfg: DictConfig) -> DepthDataModule | DA2K:
    if is_da2k(cfg):
        pairs: DA2K = objects.dataset_of(cfg.data)()
        return pairs
    data = objects.build_data(cfg)
    data.setup("validate")
    return data


def _evaluate(
    cfg: DictConfig, network: DepthAnythingV2, data: DepthDataModule | DA2K, overrides: Sequence[str]
) -> EvaluationResult | PairScore:
    title = f"checkpoint {cfg.checkpoint}" if cfg.checkpoint else f"{cfg.model.weights}"
    if isinstance(data, DA2K):
        if cfg.report:
            log.warning("report=true: there is no page for point pairs; their table is all there is.")
        return evaluate_da2k(cfg, network, data, title)
    module = DepthModule(network, objects.build_metrics(cfg))
    explain = Explain(module.metrics.protocol, relative=network.output == "relative") if cfg.explain else None
    pictures = PageImages() if cfg.report else None
    trainer = objects.build_trainer(cfg, callbacks=[part for part in (explain, pictures) if part], loggers=[])
    result = score(trainer, module, data, cfg.breakdowns)
    variants = explain.variants() if explain else None
    images = pictures.gathered() if pictures else None
    if trainer.is_global_zero:
        table = report(cfg, result, module.metrics, data, title, variants)
        if images is not None:
            command = ["python", "evaluate.py", *overrides]
            report_page(cfg, result, module.metrics.protocol, title, table, images, command)
        if cfg.panels:
            picture = Path(cfg.run_dir) / "panels.png"
            save_png(picture, draw_panels(module, data.val_data, cfg.panels))
            log.info(f"Pictures: {picture}")
    return result


def score(
    trainer: lightning.Trainer, module: DepthModule, data: DepthDataModule, breakdowns: bool = True
) -> EvaluationResult:
    """The module's metrics over the whole validation split; every process calls it and gets the same.

    Args:
        trainer: which validates.
        module: with the network and the metrics.
        data: of which the validation split is scored.
        breakdowns: whether to find out where the error is, too.
    """
    parts = ScoreParts(module.metrics.protocol)
    trainer.callbacks += [parts] if breakdowns else []  # type: ignore[attr-defined]
    trainer.validate(module, datamodule=data, verbose=False)
    assert module.counts is not None and module.tables is not None
    logged = {name.removeprefix("val/"): float(value) for name, value in trainer.callback_metrics.items()}
    names = [*module.metrics.errors, *module.affine_metrics.errors]
    depth, _ = module.tables
    return EvaluationResult(
        metrics={name: logged[name] for name in names if name in logged},
        counts=module.counts,
        intervals=_intervals((module.metrics, module.affine_metrics), module.tables),
        tables=module.tables,
        breakdowns=Breakdowns(**parts.rows(), **group_rows(depth))
        if breakdowns and module.counts.depth.scored
        else None,
    )


def _intervals(metrics: Sequence[PerImageMetrics], tables: ValidationTables) -> Intervals:
    """Of all metrics; what was drawn is said of the first that scored an image."""
    found = [one.intervals(table) for one, table in zip(metrics, tables, strict=True) if table.scored.any()]
    bounds = {name: bound for intervals in found for name, bound in intervals.bounds.items()}
    return found[0]._replace(bounds=bounds) if found else Intervals({}, "images", 0)


def report(
    cfg: DictConfig,
    result: EvaluationResult,
    metrics: DepthMetrics,
    data: DepthDataModule,
    title: str,
    variants: Sequence[Variant] | None = None,
) -> tuple[dict[str, Mapping[str, float]], list[str]]:
    """Print the tables, and write metrics.json, table.csv, per_image.parquet and breakdowns.* into the run's folder.

    Args:
        cfg: with the run's folder, and what is recorded of the network.
        result: what was found.
        metrics: under which protocol.
        data: for the baseline.
        title: above the table.
        variants: what other protocols make of it, if they were asked for.

    Returns:
        The columns of the table, and the notes below it.

    Raises:
        ValueError: no image had anything to score.
    """
    columns, notes, content = summarise(cfg, result, metrics, data)
    if variants:
        content["explain"] = as_rows(variants)
    run_dir = Path(cfg.run_dir)
    write_json(run_dir / "metrics.json", content)
    bounds = {
        f"95 % {side}": {name: found[end] for name, found in result.intervals.bounds.items()}
        for end, side in enumerate(("from", "to"))
    }
    write_csv(run_dir / "table.csv", {**columns, **bounds})
    if result.tables is not None:
        write_parquet(run_dir / "per_image.parquet", result.per_image())
    written = f"Written: {run_dir}/metrics.json, table.csv, per_image.parquet"
    images = dict.fromkeys(columns, content["images"])
    print_table(title, columns, [*notes, written], result.intervals.bounds, images)
    if result.breakdowns is not None:
        report_breakdowns(result.breakdowns, run_dir)
    if variants is not None:
        report_variants(variants, run_dir)
    return columns, notes
