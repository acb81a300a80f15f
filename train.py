"""Fine-tune Depth Anything V2: python train.py --help."""

from depth_lightning.runs.program import program

if __name__ == "__main__":
    program("train")
