"""Saving a run so that it resumes exactly where it stopped."""
