"""Heads: methods of speech emotion recognition, each on top of the frames of an encoder."""

if __name__ == "heads":  # this import would create a second copy of every class
    raise ImportError("import serzoo.heads, not heads: put `serzoo.` before the path")
