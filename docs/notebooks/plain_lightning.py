# %% [markdown]
# # Plain Lightning
#
# `build_run` gives a LightningModule and a LightningDataModule. The trainer is yours, with your
# callbacks and loggers.

# %%
import lightning
from serzoo.zoo import SERModule, build_run

settings = ["head=gen_ser", "encoder=serzoo-small", "data.options={speakers: 12, utterances: 2}"]
module, data = build_run("synthetic", settings)
print(type(module.head).__name__, module.head.taxonomy.classes)

# %% [markdown]
# The encoder is frozen, so its frames are computed once. Leave this line out to encode in every
# epoch.

# %%
data.store_features(module.encoder)

# %%
trainer = lightning.Trainer(max_epochs=4, gradient_clip_val=1.0, enable_progress_bar=False)
trainer.fit(module, data)
print({name: round(float(value), 3) for name, value in trainer.callback_metrics.items()})

# %% [markdown]
# The selected checkpoint holds all that is needed to load it.

# %%
model = SERModule.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
scores = trainer.predict(model, data)
print(len(scores), "batches of scores; the first one is", tuple(scores[0].shape))
