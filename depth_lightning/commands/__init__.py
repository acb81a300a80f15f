"""The commands that users type: configuration → objects → the work."""
