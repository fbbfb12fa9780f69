"""The embedded corpora: speech of espeak-ng, for the quickstart and for tests."""
