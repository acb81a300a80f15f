"""Score a checkpoint or released weights: python evaluate.py --help."""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate as configured."""
    from depth_lightning.commands import evaluate  # here, so that --help and --cfg answer without importing torch

    evaluate.run(cfg)


if __name__ == "__main__":
    main()
