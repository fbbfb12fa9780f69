"""Data: corpora, manifests, protocols, batches."""

if __name__ == "datamodules":  # this import would create a second copy of every class
    raise ImportError("import serzoo.datamodules, not datamodules: put `serzoo.` before the path")
