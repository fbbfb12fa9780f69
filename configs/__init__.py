"""Shipped configurations: one sub-package per group, read with `importlib.resources`."""
