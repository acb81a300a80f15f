"""Score a checkpoint or released weights: python evaluate.py --help."""

from depth_lightning.runs.program import program

if __name__ == "__main__":
    program("evaluate")
