"""What a person types: configuration → objects → the work."""
