"""Which of several evaluations is better, and how sure that is: python -m depth_lightning compare a/ b/.

Runs are compared image by image, so that what is hard in an image cancels. Torch is imported when there is work.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the folders given: two in all their metrics, more in a ranking."""
    parser = argparse.ArgumentParser("python -m depth_lightning compare", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of evaluate.py or train.py, or one of a sweep")
    parser.add_argument("--metric", help="what a ranking goes by (abs_rel, or affine_error where there is none)")
    parser.add_argument("--output", type=Path, help="folder for the files (default: the sweep's, or else none)")
    given = parser.parse_args(arguments)
    try:
        compare(given.folders, given.metric, given.output)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def compare(folders: Sequence[Path], metric: str | None = None, output: Path | None = None) -> None:
    """Compare runs, print what was found, and write it into `output`.

    Args:
        folders: of two or more evaluations, or of one sweep.
        metric: what a ranking goes by.
        output: where to write to; None: the sweep's folder, or nowhere.

    Raises:
        FileNotFoundError: a folder holds no evaluation.
        ValueError: there are fewer than two runs, or they were not measured alike on the same images.
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
