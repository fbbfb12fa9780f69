"""Shipped `recipe` configurations, one YAML file each."""
