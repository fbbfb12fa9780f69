"""From samples to frames: encoders of our own, published ones, and those of other runs."""
