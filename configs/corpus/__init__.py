"""Shipped `corpus` configurations, one YAML file each."""
