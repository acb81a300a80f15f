"""Export a network for other programs: python export.py --help."""

from omegaconf import DictConfig

from depth_lightning.commands.program import program


@program("export")
def main(cfg: DictConfig) -> None:
    """Export as configured."""
    from depth_lightning.commands import export  # here, so that --help and --cfg answer without importing torch

    export.run(cfg)


if __name__ == "__main__":
    main()
