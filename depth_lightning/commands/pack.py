"""Write a data set into a few large files: `python -m depth_lightning.commands.pack data=… output=…`."""

from pathlib import Path

from omegaconf import DictConfig

from depth_lightning.commands.program import program


@program("pack", conf=Path(__file__).resolve().parents[2] / "conf")
def main(cfg: DictConfig) -> None:
    """Pack as configured."""
    from depth_lightning.commands import packing  # here, so that --help and --cfg answer without importing torch

    packing.run(cfg)


if __name__ == "__main__":
    main()
