"""Score a checkpoint or released weights: python evaluate.py --help."""

from omegaconf import DictConfig

from depth_lightning.commands.program import program


@program("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate as configured."""
    from depth_lightning.commands import evaluate  # here, so that --help and --cfg answer without importing torch

    evaluate.run(cfg)


if __name__ == "__main__":
    main()
