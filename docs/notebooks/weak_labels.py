# %% [markdown]
# # Weak labels
#
# People's labels are dear, and speech is not. A language model can read what is said and give weak
# labels. Here a word list does it, which needs no download; the speech and its text are embedded.

# %%
# !serzoo label synthetic_talk taxonomy=basic7 scorer=lexicon options.text=true out=labels

# %% [markdown]
# Where does a label come from?

# %%
import json
from pathlib import Path

first = json.loads(Path("labels/manifest.jsonl").read_text("utf-8").splitlines()[0])["id"]
print(first)

# %%
# !serzoo label trace labels $(head -1 labels/manifest.jsonl | grep -o 'synthetic_talk/[a-z0-9-]*' | head -1)

# %% [markdown]
# A model that hears only the voice learns these labels. The loss weighs them by their confidence.

# %%
# !serzoo train lanser_pretrain data.manifest=labels/manifest.jsonl encoder=serzoo-small optim.epochs=4 trainer.progress=false

# %% [markdown]
# Then a few labels of people do the rest:
# `serzoo train lanser_finetune init=RUN data.train_share=0.1`.
# Are the weak labels right? `serzoo label audit labels human=FILE` compares them with people's.
# See [labels from words](../how-to/label-from-words.md).
