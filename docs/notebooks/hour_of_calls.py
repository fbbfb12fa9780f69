# %% [markdown]
# # An hour of calls
#
# A call has two channels, one speaker in each. Here we make a short one from the embedded voices.
# An hour works the same way: recordings are read in pieces.

# %%
from pathlib import Path

import numpy as np
import soundfile

# %%
# !mkdir voices
# !serzoo prepare synthetic root=voices out=voices.jsonl options.speakers=12 options.utterances=2
# !serzoo train synthetic encoder=serzoo-small data.manifest=voices.jsonl optim.epochs=40 trainer.progress=false

# %%
rate, call = 16_000, []
for turn in range(8):
    speaker, emotion = ("f01", "angry") if turn % 2 == 0 else ("m01", "sad")
    files = sorted(Path("voices").rglob(f"{speaker}-{emotion}-*.flac"))
    wave, rate = soundfile.read(files[turn // 2 % len(files)])
    sides = np.zeros((len(wave) + rate, 2))
    sides[: len(wave), turn % 2] = wave
    call.append(sides + 1e-4 * np.random.default_rng(turn).normal(size=sides.shape))
soundfile.write("call.wav", np.concatenate(call), rate)

# %% [markdown]
# `--channel separate` makes a timeline of each channel. `--voice energy` leaves out the time in
# which the other one speaks.

# %%
# !serzoo predict runs/synthetic/* call.wav --channel separate --voice energy --out call.csv --textgrid call.TextGrid --plot call.png
# !head -4 call.csv

# %% [markdown]
# Praat opens `call.TextGrid`, and `call.png` shows the probabilities over time. The table is for
# your own sums. For instance: how many seconds of windows have each label?

# %%
import csv
from collections import defaultdict

shares = defaultdict(float)
with open("call.csv", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        if not row["error"]:
            shares[row["channel"], row["label"]] += float(row["end"]) - float(row["start"])
for (channel, label), seconds in sorted(shares.items()):
    print(f"channel {channel}: {label} {seconds:.1f} s")

# %% [markdown]
# For raw samples of a stream, see [sound from a pipe](../reference/cli.md#sound-from-a-pipe).
# `serzoo demo` shows the same in a browser, and plays the stretches that are uncertain.
#
# A class is what speech sounds like. Do not judge people by it.
