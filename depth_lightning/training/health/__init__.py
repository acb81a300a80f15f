"""The health of a run: the check before it, the watch over every step, and the record of a bad step."""
