"""Saving a run so that it can go on exactly where it stopped."""
