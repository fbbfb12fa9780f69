"""Numbers from predictions, and how certain they are."""
