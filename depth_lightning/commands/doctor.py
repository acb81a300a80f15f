"""Read a data set before anyone trains on it: `python -m depth_lightning.commands.doctor data=…`."""

from pathlib import Path

from omegaconf import DictConfig

from depth_lightning.commands.program import program


@program("doctor", conf=Path(__file__).resolve().parents[2] / "conf")
def main(cfg: DictConfig) -> None:
    """Examine as configured; the exit status is 2 where something looks wrong."""
    from depth_lightning.commands import diagnose  # here, so that --help and --cfg answer without importing torch

    diagnose.run(cfg)


if __name__ == "__main__":
    main()
