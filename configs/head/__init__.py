"""Shipped `head` configurations, one YAML file each."""
