"""Recordings of any length to rows of predictions."""
