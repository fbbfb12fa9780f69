"""Shipped `optim` configurations, one YAML file each."""
