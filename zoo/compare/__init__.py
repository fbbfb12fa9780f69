"""Suites: their cells, the workers that run them, and the rows that come from elsewhere."""
