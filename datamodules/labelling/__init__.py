"""Weak labels for unlabelled speech: from its words, by a language model, as LanSER does."""
