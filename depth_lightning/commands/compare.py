"""Tell which of several evaluations is better, and how certain that is.

Runs are compared image by image, so that the difficulty of an image cancels.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from depth_lightning.interrupts import leave_at_once
from depth_lightning.invocation import command_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the given folders: two in all their metrics, more in a ranking."""
    # Torch is imported only when the work starts, so that --help answers at once.
    parser = argparse.ArgumentParser(command_line("compare"), description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of evaluate.py or train.py, or one of a sweep")
    parser.add_argument("--metric", help="metric of a ranking (default: abs_rel, or affine_error without abs_rel)")
    parser.add_argument(
        "--output", type=Path, help="folder for the files (default: the sweep's; else none are written)"
    )
    options = parser.parse_args(arguments)
    leave_at_once("Interrupted. To do it again, repeat the command.")
    try:
        compare(options.folders, options.metric, options.output)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def compare(folders: Sequence[Path], metric: str | None = None, output: Path | None = None) -> None:
    """Compare runs, print the results, and write them into `output`.

    Args:
        folders: of two or more evaluations, or of one sweep.
        metric: the metric of a ranking.
        output: folder to write to; None: the sweep's folder, or nowhere.

    Raises:
        FileNotFoundError: a folder holds no evaluation.
        ValueError: there are fewer than two runs, or their protocols or images differ.
    """
    from depth_lightning.evaluation.compare import report_pair
    from depth_lightning.evaluation.evaluated_run import check_comparable, read_run
    from depth_lightning.evaluation.ranking import report_ranking
    from depth_lightning.runs.jobs import compare_sweep, shortened

    if len(folders) == 1:
        compare_sweep(folders[0], metric, output)
        return
    names = shortened([folder.resolve().as_posix() for folder in folders])
    runs = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    for other in runs[1:]:
        check_comparable(runs[0], other)
    if len(runs) == 2:
        report_pair(runs[0], runs[1], output)
    else:
        report_ranking(runs, metric, output)


if __name__ == "__main__":
    main()
