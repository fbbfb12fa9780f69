"""Shipped `taxonomy` configurations, one YAML file each."""
