"""Shipped claims of papers, one YAML file each."""
