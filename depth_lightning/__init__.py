"""Fine-tune Depth Anything V2 on depth data, and measure how good the result is."""

__version__ = "0.1.0"
