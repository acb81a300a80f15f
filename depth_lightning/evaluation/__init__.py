"""Scoring a network, and all that watches a validation."""
