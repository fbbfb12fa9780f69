# %% [markdown]
# # Four recordings of each emotion
#
# A model was trained on some voices, and yours are different. Four recordings of each emotion can
# bring it closer. Here a model learns from women's voices, and is adapted to men's.

# %%
# !mkdir voices
# !serzoo prepare synthetic root=voices out=voices.jsonl options.speakers=12 options.utterances=2
# !for who in female male; do grep "\"gender\": \"$who\"" voices.jsonl > $who.jsonl; cp voices.json $who.json; done

# %%
# !serzoo train synthetic data.manifest=female.jsonl protocol=kfold-3 encoder=serzoo-small optim.epochs=8 trainer.progress=false

# %% [markdown]
# First the model as it is (`shots=0`). Then a new output layer, learned from four recordings of
# each emotion (`tuning=head`). Both are tested on men who gave none of the recordings.

# %%
# !serzoo adapt runs/synthetic/* data=male.jsonl protocol=kfold-3 shots=0
# !serzoo adapt runs/synthetic/* data=male.jsonl protocol=kfold-3 shots=4 tuning=head

# %% [markdown]
# The corpus of this page is tiny, so read the form of the output and not its numbers. One draw of
# four recordings says little, too: another draw gives another number. The suite `few_shot`
# repeats it over draws, shots and heads, and draws learning curves.
