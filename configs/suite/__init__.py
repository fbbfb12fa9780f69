"""Shipped `suite` configurations, one YAML file each."""
