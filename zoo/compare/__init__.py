"""Suites: their cells, the workers that run these, and rows that are imported or averaged."""
