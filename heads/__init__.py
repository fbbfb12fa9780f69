"""Heads: ways of posing speech emotion recognition."""

if __name__ == "heads":  # a second copy of every class would follow
    raise ImportError("import serzoo.heads, not heads: put `serzoo.` before the path")
