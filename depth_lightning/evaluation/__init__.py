"""Scoring of networks, and the observers of a validation."""
