"""Encoders, from samples to frames: trained from scratch, published, or taken from another run."""
