"""Shipped `encoder` configurations, one YAML file each."""
