"""Facts about published models, for `serzoo list`."""
