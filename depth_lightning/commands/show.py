"""See what the network sees of a data set: `python -m depth_lightning.commands.show data=… split=train`."""

from pathlib import Path

from omegaconf import DictConfig

from depth_lightning.commands.program import program


@program("show", conf=Path(__file__).resolve().parents[2] / "conf")
def main(cfg: DictConfig) -> None:
    """Draw as configured."""
    from depth_lightning.commands import sample_sheet  # here, so that --help and --cfg answer without importing torch

    sample_sheet.run(cfg)


if __name__ == "__main__":
    main()
