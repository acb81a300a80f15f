"""A run: its configuration as objects, its folder, its checkpoint, resuming it, and sweeps of runs."""
