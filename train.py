"""Fine-tune Depth Anything V2: python train.py --help."""

from omegaconf import DictConfig

from depth_lightning.commands.program import program


@program("train")
def main(cfg: DictConfig) -> float | None:
    """Train as configured; the best val/abs_rel, for sweepers."""
    from depth_lightning.commands import train  # here, so that --help and --cfg answer without importing torch

    return train.run(cfg)


if __name__ == "__main__":
    main()
