# %% [markdown]
# # Your own data
#
# Your speech needs no code. Put it into a folder with one sub-folder for each emotion. Here we make
# such a folder from the embedded corpus; yours would be there already.

# %%
import json
import shutil
from pathlib import Path

# %%
# !mkdir made
# !serzoo prepare synthetic root=made out=made.jsonl options.speakers=12 options.utterances=2

# %%
for line in Path("made.jsonl").read_text().splitlines():
    spoken = json.loads(line)
    label, file = spoken["label"], Path("made") / spoken["audio"]
    if label in ("angry", "happy", "neutral", "sad"):
        Path("mine", label).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, Path("mine", label, file.name))
print(*sorted(str(path) for path in Path("mine").rglob("*01.flac"))[:4], sep="\n")

# %% [markdown]
# `prepare` listens to every file and writes a manifest, one line per recording. It refuses bad
# audio and says how much. The pattern finds the speaker in a name: here the first three characters.

# %%
# !serzoo prepare folder root=mine out=mine.jsonl "options.speaker=([fm]\d\d)-"

# %% [markdown]
# Speakers must not be in training and test at once. The audit looks for shared speakers and for
# equal recordings:

# %%
# !serzoo audit mine.jsonl protocol=kfold-3

# %% [markdown]
# Then train. `serzoo-small` is an encoder that comes with serzoo, so nothing is downloaded.

# %%
# !serzoo train synthetic corpus=folder data.manifest=mine.jsonl protocol=kfold-3 encoder=serzoo-small optim.epochs=40 trainer.progress=false

# %% [markdown]
# Do your labels stand in a table? Use `corpus=csv`. Data of other tools (audformat, Hugging Face,
# Kaldi and more) are read as they are: see [import data](../how-to/import-data.md).
