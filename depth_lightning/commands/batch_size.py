"""The largest batch that trains: `python -m depth_lightning.commands.batch_size model=… trainer=… data=…`."""

from pathlib import Path

from omegaconf import DictConfig

from depth_lightning.commands.program import program


@program("batch_size", conf=Path(__file__).resolve().parents[2] / "conf")
def main(cfg: DictConfig) -> None:
    """Search as configured."""
    from depth_lightning.commands import batch_search  # here, so that --help and --cfg answer without importing torch

    batch_search.run(cfg)


if __name__ == "__main__":
    main()
