"""Cue words of emotions, per language: for the labelling that works without a language model."""
