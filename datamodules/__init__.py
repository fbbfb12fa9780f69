"""Data: corpora, manifests, protocols, batches."""

if __name__ == "datamodules":  # a second copy of every class would follow
    raise ImportError("import serzoo.datamodules, not datamodules: put `serzoo.` before the path")
