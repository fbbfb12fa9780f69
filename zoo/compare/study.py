"""Searches by Optuna, whose settings depend on the results of earlier trials.

There is a study for each head and fold. All studies of a comparison are in one file, Optuna's
journal, which holds JSON. Several machines may read and write it, also on NFS: its lock is a link.

One process asks for settings and tells results: the comparison. It asks for a batch of trials, and
tells all of them before it asks again. A sampler gets its seed from the study and the number of the
trial. So the settings are the same on any engine, with any number of workers, and after a restart.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from ..core.errors import ConfigError
from ..run.record import Record
from ..run.schema import METRIC_KEYS, RunConfig
from ..run.train import selected_by, train
from .search import PRUNED, Search, rounded

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FILE = "studies.log"
"""Name of the journal, in the folder of the trials."""
LOOKS = 10
"""A trial is looked at after each tenth of its epochs, since trials differ in their number."""
WARM = 3
"""Looks before the first trial may be pruned (our choice)."""


def refuse_missing() -> None:
    """Check that Optuna is installed.

    Raises:
        ConfigError: if it is not.
    """
    if find_spec("optuna") is None:
        raise ConfigError(
            "this sampler needs the package optuna, which is not installed; install it with "
            "pip install 'serzoo[search]', or set search.sampler=random"
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Context without Optuna's notes on what is new in it, and on each trial."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


@dataclass(frozen=True)
class Asked:
    """A trial: its number among those that count, that of Optuna, and its settings."""

    number: int
    id: int
    settings: dict[str, Any]


class Study:
    """The search of one head in one fold.

    Args:
        search: the budget.
        head: name of the head.
        name: name of the study in the journal; a changed budget begins another study.
        file: the journal; its folder must exist.
    """

    def __init__(self, search: Search, head: str, name: str, file: Path) -> None:
        self.search, self.head, self.file = search, head, file
        self.space = search.space_of(head)
        self.drawn = search.settings(head)
        digest = zlib.crc32(json.dumps([search.budget(), self.space], sort_keys=True).encode())
        self.name = f"{name}-{digest:08x}"
        with _quietly():
            self.study = _opened(self.name, file)

    def trials(self) -> list[Asked]:
        """Return all trials so far, in order; those that repeated a setting do not count."""
        found: list[Asked] = []
        for trial in self.study.get_trials(deepcopy=False):
            if "settings" in trial.user_attrs:
                settings = json.loads(trial.user_attrs["settings"])
                found.append(Asked(len(found), trial.number, settings))
        return found

    def open(self) -> list[Asked]:
        """Return the trials whose results have not been told."""
        states = [trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False)]
        return [asked for asked in self.trials() if not states[asked.id]]

    def ask(self) -> list[Asked]:
        """Return the next trials; those of an earlier call first, if it did not tell its results.

        Returns:
            The trials of a batch. The first batch has all that are drawn at random. It is empty if
            the budget is used up.
        """
        if left := self.open():
            return left
        known = len(self.trials())
        wanted = max(self.search.batch, self.search.first - known)
        number = min(wanted, self.search.trials - known)
        with _quietly():
            for n in range(known, known + number):
                self._draw(n)
        return self.open()

    def _draw(self, number: int) -> None:
        seen = [asked.settings for asked in self.trials()]
        trial = None
        if number >= self.search.first:
            self.study.sampler = self._sampler(number)
            trial = self.study.ask(self._distributions())
            if self._settings(trial.params) in seen:
                self.study.tell(trial, state=_states().FAIL)
                trial = None
        if trial is None:
            settings = next(s for s in self.drawn if s not in seen)
            self.study.enqueue_trial(self._params(settings))
            trial = self.study.ask(self._distributions())
        else:
            settings = self._settings(trial.params)
        trial.set_user_attr("settings", json.dumps(settings))

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import GPSampler, TPESampler

        entropy = [self.search.seed, zlib.crc32(self.name.encode()), number]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        if self.search.sampler == "gp":
            return GPSampler(seed=seed, n_startup_trials=2, deterministic_objective=True)
        return TPESampler(seed=seed, n_startup_trials=2)

    def _distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        found: dict[str, BaseDistribution] = {}
        for key, values in self.space.items():
            if isinstance(values, list):  # as texts: a value may be a list, and true is not 1
                found[key] = CategoricalDistribution([json.dumps(value) for value in values])
            else:
                low, high = float(values["low"]), float(values["high"])
                found[key] = FloatDistribution(low, high, log=bool(values.get("log", True)))
        return found

    def _settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: json.loads(params[key]) if isinstance(values, list) else rounded(params[key])
            for key, values in self.space.items()
        }

    def _params(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, values in self.space.items():
            if isinstance(values, list):
                found[key] = json.dumps(settings[key])
            else:  # a rounded number may lie just outside
                found[key] = min(max(settings[key], float(values["low"])), float(values["high"]))
        return found

    def tell(self, asked: Asked, record: Record | None, metric: str) -> None:
        """Tell the result of a trial; one that failed, or was pruned, counts in the budget.

        Args:
            asked: the trial.
            record: its record; None = it has none.
            metric: what it is compared by: ``uar``, ``wa`` or ``macro_f1``.
        """
        states = _states()
        if record is None or not record.ok:
            self.study.tell(asked.id, state=states.FAIL)
        elif PRUNED in record.more:
            self.study.tell(asked.id, state=states.PRUNED)
        else:
            self.study.tell(asked.id, record.selection[f"val/{METRIC_KEYS[metric]}"])


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState


def _opened(name: str, file: Path) -> optuna.Study:
    """Return a study of a journal; it is made if it is missing."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        storage = JournalStorage(JournalFileBackend(str(file)))
    except ValueError as e:  # a line of it is no JSON
        raise ConfigError(
            f"{file} is damaged ({e}); remove it, and the search begins anew (finished trials with "
            "the same settings are kept)"
        ) from e
    return optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )


# A trial that may be pruned, in its worker.


class Pruning(Callback):
    """Ends a training if its validation score is below the median of earlier trials.

    The score is that of its best epoch so far. Earlier trials of the study count with their best
    score after the same share of their epochs. They count if their results were told. So it does
    not matter what runs at the same time.

    Args:
        study: name of the study.
        file: its journal.
        trial: Optuna's number of the trial.
        metric: name of the validation score, such as ``val/uar``.

    Attributes:
        facts: what the record of the trial gets.
    """

    def __init__(self, study: str, file: Path, trial: int, metric: str) -> None:
        self.study, self.file, self.trial, self.metric = study, file, trial, metric
        self.best, self.look = -1.0, 0
        self.facts: dict[str, Any] = {}

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        score = trainer.callback_metrics.get(self.metric)
        if trainer.state.fn != TrainerFn.FITTING or score is None:
            return
        self.best = max(self.best, float(score))
        done = trainer.current_epoch + 1
        look = LOOKS * done // (trainer.max_epochs or 1)
        if look > self.look and look < LOOKS:
            self.look = look
            self._judge(trainer, done)

    def _judge(self, trainer: L.Trainer, done: int) -> None:
        from optuna.pruners import MedianPruner
        from optuna.trial import Trial

        with _quietly():
            study = _opened(self.study, self.file)
            study.pruner = MedianPruner(n_startup_trials=2, n_warmup_steps=WARM)
            trial = Trial(study, study.get_trials(deepcopy=False)[self.trial]._trial_id)
            trial.report(self.best, self.look)
            if trial.should_prune():
                self.facts = {PRUNED: {"epoch": done - 1, "score": self.best}}
                trainer.should_stop = True


def run_trial(
    cfg: RunConfig,
    out: Path,
    *,
    study: str,
    journal: str,
    trial: int,
    facts: Mapping[str, Any] | None = None,
) -> Record:
    """Train a trial that may be pruned.

    Args:
        cfg: the resolved configuration.
        out: folder of the trial.
        study: name of its study.
        journal: file of all studies.
        trial: Optuna's number of the trial.
        facts: more entries of the record.

    Returns:
        The record; if the trial was pruned, it says after which epoch.
    """
    pruning = Pruning(study, Path(journal), trial, selected_by(cfg.optim))
    return train(cfg, out, facts=facts, test=False, callbacks=[pruning])
