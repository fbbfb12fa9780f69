"""One run: configuration, training, checkpoints, predictions."""
