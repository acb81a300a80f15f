"""The output of an evaluation: tables on the terminal, and files in its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from depth_lightning.evaluation.breakdowns import report_breakdowns
from depth_lightning.evaluation.explain import Variant, as_rows, report_variants
from depth_lightning.evaluation.summary import Summary
from depth_lightning.reporting.result import EvaluationResult
from depth_lightning.reporting.tables import print_table, write_csv, write_json, write_parquet


def report(
    run_dir: Path, title: str, summary: Summary, result: EvaluationResult, variants: Sequence[Variant] | None = None
) -> None:
    """Print the tables, and write metrics.json, table.csv, per_image.parquet and breakdowns.* into `run_dir`.

    Args:
        run_dir: of the evaluation.
        title: above the table.
        summary: of `result`.
        result: the numbers.
        variants: the same predictions under other protocols, if requested.
    """
    columns, notes, content = summary
    if variants:
        content = {**content, "explain": as_rows(variants, result.higher_is_better)}
    write_json(run_dir / "metrics.json", content)
    bounds: Mapping[str, Mapping[str, float]] = {
        f"95 % {side}": {name: interval[end] for name, interval in result.intervals.bounds.items()}
        for end, side in enumerate(("from", "to"))
    }
    write_csv(run_dir / "table.csv", {**columns, **bounds})
    if result.tables is not None:
        write_parquet(run_dir / "per_image.parquet", result.per_image())
    written = f"Written: {run_dir}/metrics.json, table.csv, per_image.parquet"
    images = dict.fromkeys(columns, content["images"]) | {name: part.images for name, part in result.parts.items()}
    print_table(title, columns, result.higher_is_better, [*notes, written], result.intervals.bounds, images)
    if result.breakdowns is not None:
        report_breakdowns(result.breakdowns, run_dir)
    if variants is not None:
        report_variants(variants, result.higher_is_better, run_dir)
