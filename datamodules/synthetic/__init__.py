"""The embedded corpora: speech acted by espeak-ng, for the quickstart and for tests."""
