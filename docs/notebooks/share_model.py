# %% [markdown]
# # Share a model
#
# A run's folder is for you. To give a model to others, save it: weights, configuration and a model
# card. Nothing in it is code, and loading it runs none.

# %%
# !mkdir voices
# !serzoo prepare synthetic root=voices out=voices.jsonl options.speakers=12 options.utterances=2
# !serzoo train synthetic encoder=serzoo-small data.manifest=voices.jsonl optim.epochs=40 trainer.progress=false
# !serzoo save runs/synthetic/* my-model --licence cc-by-4.0
# !ls my-model

# %% [markdown]
# Read the card before you share the model. It says what the model is for, and how well it does.
# It also says on which class the model fails, and what the law forbids.

# %%
from pathlib import Path

card = Path("my-model/README.md").read_text("utf-8")
print(card[card.index("## Metrics") : card.index("## Data")])

# %% [markdown]
# Whoever gets the folder loads it. The answers are the same, bit for bit.

# %%
from serzoo.zoo import load

recording = next(Path("voices").rglob("*.flac"))
(run,) = Path("runs/synthetic").iterdir()
before, after = load(run).predict(recording), load("my-model").predict(recording)
print(after)
assert before[0].probs == after[0].probs

# %% [markdown]
# `serzoo push runs/synthetic/... me/my-model` uploads it to the Hugging Face hub, private at first.
# `serzoo export` writes it as ONNX, for programs without Python.
