"""A trained model to other speech, by a few utterances of each class."""
