"""Shipped `distil` configurations, one YAML file each."""
