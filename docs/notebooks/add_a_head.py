# %% [markdown]
# # Add a head
#
# A head sees frames, not files. `loss` gets targets; `scores` does not. Options are keywords with a
# type and a default. It must be in a file, so that other processes can import it.

# %%
from pathlib import Path

Path("my_head.py").write_text('''
from serzoo.zoo import Frames, Head, HeadLoss, Targets, Taxonomy
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class MyHead(Head):
    """One linear layer on the mean frame.

    Args:
        dropout: dropout rate before the layer, in training.
    """

    def __init__(self, dim: int, taxonomy: Taxonomy, *, dropout: float = 0.1) -> None:
        super().__init__(dim, taxonomy)
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, len(taxonomy)))

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        per_item = cross_entropy(self.layers(frames.mean()), targets.probs, reduction="none")
        return HeadLoss(targets.average(per_item), {})

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        return self.layers(frames.mean()).float().log_softmax(-1)[:, self.columns(taxonomy)]
''')

# %% [markdown]
# The contract kit checks it: padding changes nothing, gradients reach every weight, and more.

# %%
from serzoo.zoo.core import own, registry
from serzoo.zoo.testing import check_head

check_head(registry.get("heads", own.adopt("heads", "./my_head.py:MyHead")))
print("the head keeps its contract")

# %% [markdown]
# Then it stands beside the others, on the same speech and the same folds:

# %%
# !serzoo compare quickstart head='[classification,./my_head.py:MyHead]' fold='[0]' seed='[1]' data.options='{speakers: 12, utterances: 2}' --workers 1

# %% [markdown]
# All that a head promises, and what it may do more: [add a head](../how-to/add-a-head.md).
