"""Predict depth for images or a video: python predict.py --help."""

from omegaconf import DictConfig

from depth_lightning.commands.program import program


@program("predict")
def main(cfg: DictConfig) -> None:
    """Predict as configured."""
    from depth_lightning.commands import predict  # here, so that --help and --cfg answer without importing torch

    predict.run(cfg)


if __name__ == "__main__":
    main()
