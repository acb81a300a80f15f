"""Predict depth for images or a video: python predict.py --help."""

from depth_lightning.runs.program import program

if __name__ == "__main__":
    program("predict")
