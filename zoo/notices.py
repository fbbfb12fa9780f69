"""Which notices of other libraries a user sees."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Silence notices that tell a user nothing to act on."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*GPU available but not used.*",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*Trying to infer the `batch_size`.*",
        ".*in eval mode at the start of training.*",  # a frozen encoder is meant to be
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # all ranks log the same number
    ):
        warnings.filterwarnings("ignore", text)
