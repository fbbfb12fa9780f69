# %% [markdown]
# # Compare heads
#
# A head poses the task: as classification, as distance to a learned point of each class, as text.
# Everything else is shared: speech, folds, encoder, seeds. So a difference is due to the head.
#
# `make compare` compares five heads on 24 voices with three seeds. Here are two heads, one seed and
# two of the folds, so that it is soon done.

# %%
# !serzoo compare quickstart head='[classification,prototype]' fold='[0,1]' seed='[1]' data.options='{speakers: 12, utterances: 2}' --workers 1

# %% [markdown]
# The interval of each UAR is over speakers, and so is the difference. Two folds cannot tell much:
# read the verdict before the numbers. `runs/quickstart/report.html` shows all of it.
#
# Every number is computed from one file per cell, with one row per utterance:

# %%
from pathlib import Path

from serzoo.zoo import PredictionTable

for path in sorted(Path("runs/quickstart/cells").glob("*/predictions.jsonl")):
    table = PredictionTable.read_jsonl(path)
    recalls = {name: round(float(value), 2) for name, value in table.recalls().items()}
    print(path.parent.name, f"UAR {table.uar():.3f}", recalls)

# %% [markdown]
# To compare on real speech, set `SERZOO_DATA` to a folder of corpora and run `make compare`.
# To compare your own head, [add it](add_a_head.py) to the list.
