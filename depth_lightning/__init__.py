"""Fine-tune Depth Anything V2 on depth data, and know how good the result is."""
