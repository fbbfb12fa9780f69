"""Numbers from predictions, and how sure they are."""
