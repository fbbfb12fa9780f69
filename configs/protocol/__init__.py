"""Shipped `protocol` configurations, one YAML file each."""
