"""The classical anchor: functionals of openSMILE and a linear SVM on a suite's own folds.

    pip install 'serzoo[classical]'
    python benchmarks/classical.py real                          # eGeMAPSv02, all recipes of `real`
    python benchmarks/classical.py real ravdess --features ComParE_2016
    python benchmarks/classical.py real --write FOLDER           # only write the predictions

Data, taxonomy, folds and class weights are those that the suite's heads have: features are
standardised by mean and deviation of the training part (nothing is normalised per speaker), C is
chosen by UAR on the fold's validation speakers (the smallest of equal ones), and what was fitted on
the training part is tested once. The predictions go into the suite's table by
``serzoo compare import``. Feature sets: Eyben et al. 2016 (eGeMAPS), Schuller et al. 2016
(ComParE); the grid of C is our choice.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.encoding import load_wave
from serzoo.datamodules.manifest import Utterance
from serzoo.datamodules.opening import audit_folds
from serzoo.zoo import config
from serzoo.zoo.cache import cache_dir
from serzoo.zoo.comparison import suite
from serzoo.zoo.comparison.exchange import Imported, import_predictions
from serzoo.zoo.comparison.foreign import Columns
from serzoo.zoo.errors import DataError
from serzoo.zoo.statistics.jackknife import jackknife
from serzoo.zoo.statistics.metrics import PredictionTable, merge
from serzoo.zoo.training.building import open_data

FEATURES = ("eGeMAPSv02", "ComParE_2016")
GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Extractor:
    """Functionals of an utterance.

    Attributes:
        name: of the feature set; with ``version``, what stored features are kept under.
        version: of the program.
        call: ``[S]`` float32 at 16 kHz to ``[F]``; NaN where a value is not defined.
    """

    name: str
    version: str
    call: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def opensmile_extractor(name: str) -> Extractor:
    """A feature set of openSMILE; its import takes seconds, so it is done here."""
    import opensmile

    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet[name], feature_level=opensmile.FeatureLevel.Functionals
    )

    def call(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        with warnings.catch_warnings():  # too short: NaN, which is counted
            warnings.simplefilter("ignore", UserWarning)
            frame = smile.process_signal(samples, 16_000)
        return np.asarray(frame.to_numpy()[0], dtype=np.float32)

    return Extractor(name, str(opensmile.__version__), call)


def functionals(
    extractor: Extractor,
    utterances: Sequence[Utterance],
    roots: dict[str, Path],
    max_seconds: float,
    folder: Path | None = None,
) -> dict[str, NDArray[np.float32]]:
    """``[F]`` of each utterance by id, kept as one ``.npy`` (no pickle) for the next call.

    Args:
        extractor: of the features.
        utterances: each once.
        roots: corpus name to its folder.
        max_seconds: longer utterances are cut to this, as for the heads.
        folder: where they are kept; ``functionals/`` in the cache by default.
    """
    order = sorted(utterances, key=lambda u: u.id)
    rows = [[u.id, u.sha, round(u.start, 4), round(u.end, 4)] for u in order]
    key = json.dumps([extractor.name, extractor.version, max_seconds, rows])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = (folder or cache_dir() / "functionals") / f"{extractor.name}-{digest}.npy"
    known = all(u.sha for u in order)  # else nothing says that the audio is the same
    if known and path.is_file():
        found = np.load(path, allow_pickle=False)
    else:
        waves = track(order, description=extractor.name, disable=not os.isatty(2))
        found = np.stack([extractor.call(load_wave(u, roots, max_seconds).numpy()) for u in waves])
        if known:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            with draft.open("wb") as file:
                np.save(file, found, allow_pickle=False)
            draft.replace(path)
    return {u.id: row for u, row in zip(order, found, strict=True)}


def standardise(train: Values, *others: Values) -> list[Values]:
    """All parts by mean and deviation of the first; what is NaN or constant there becomes 0."""
    with warnings.catch_warnings():  # of a feature that is NaN everywhere
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nan_to_num(np.nanmean(train, axis=0))
        deviation = np.nanstd(train, axis=0)
    scale = np.where(np.isfinite(deviation) & (deviation > 1e-12), deviation, np.inf)
    return [np.nan_to_num((x - mean) / scale) for x in (train, *others)]


@dataclass(frozen=True)
class Fitted:
    """One fold: the decision values of the test part, and how C was chosen."""

    test: PredictionTable
    c: float
    valid_uar: dict[float, float]
    undefined: int


def fit_fold(
    parts: dict[str, SpeechDataset],
    features: dict[str, NDArray[np.float32]],
    classes: Sequence[str],
    *,
    balance: bool = True,
    grid: Sequence[float] = GRID,
) -> Fitted:
    """Fit on train, choose C on valid, score test.

    Args:
        parts: ``train``, ``valid``, ``test``.
        features: ``[F]`` by utterance id.
        classes: of the taxonomy, in its order.
        balance: weigh classes by inverse frequency, as the heads' losses do.
        grid: values of C, ascending.
    """
    from sklearn.svm import SVC

    x, y = {}, {}
    for part in ("train", "valid", "test"):
        x[part] = np.stack([features[u.id] for u in parts[part].utterances]).astype(np.float64)
        y[part] = parts[part].classes.numpy()
    undefined = int(sum((~np.isfinite(v)).sum() for v in x.values()))
    if missing := set(range(len(classes))) - set(y["train"].tolist()):
        raise DataError(f"training lacks {', '.join(classes[i] for i in sorted(missing))}")
    x["train"], x["valid"], x["test"] = standardise(x["train"], x["valid"], x["test"])

    def table(part: str, model: Any) -> PredictionTable:
        us = parts[part].utterances
        values = model.decision_function(x[part] @ x["train"].T)
        if values.ndim == 1:  # two classes: the side of one boundary
            values = np.stack([-values, values], axis=1)
        speakers = [f"{u.corpus}/{u.speaker}" for u in us]
        return PredictionTable([u.id for u in us], speakers, y[part], values, list(classes))

    kernel = x["train"] @ x["train"].T  # linear; the same for every C
    best, found = None, {}
    for c in grid:
        # one class against another; with ties broken, the highest value is the answer
        weight = "balanced" if balance else None
        model = SVC(C=c, kernel="precomputed", class_weight=weight, break_ties=True)
        model.fit(kernel, y["train"])
        found[c] = table("valid", model).uar()
        if best is None or found[c] > found[best[0]]:
            best = (c, model)
    assert best is not None
    return Fitted(table("test", best[1]), best[0], found, undefined)


def run(
    name: str,
    recipe: str,
    extractor: Extractor,
    write: Path,
    overrides: Sequence[str] = (),
    grid: Sequence[float] = GRID,
) -> Path:
    """One recipe of a suite, all of its folds, to ``<write>/<recipe>-<features>.csv``.

    Columns: ``id``, ``fold``, and a decision value per class. A ``.json`` beside it holds C and
    UAR of each fold, seconds and versions.
    """
    import sklearn

    chosen = suite.load(name, overrides)
    base = [*chosen.overrides, f"head={chosen.axes['head'][0]}", "trainer.progress=false"]
    wanted = chosen.axes.get("fold", "all")
    folds = audit_folds(config.load(recipe, base), None if wanted == "all" else list(wanted))
    began, features, seconds = time.perf_counter(), {}, {"features": 0.0, "fit": 0.0}
    about: dict[str, Any] = {}
    tables = []
    for fold in folds:
        cfg = config.load(recipe, [*base, f"fold={fold}"])
        data = open_data(cfg)
        every = [u for d in data.datasets.values() for u in d.utterances]
        if missing := [u for u in every if u.id not in features]:
            before = time.perf_counter()
            features |= functionals(extractor, missing, data.speech.roots, cfg.data.max_seconds)
            seconds["features"] += time.perf_counter() - before
        before = time.perf_counter()
        done = fit_fold(
            data.datasets, features, data.taxonomy.classes, balance=cfg.data.balance, grid=grid
        )
        seconds["fit"] += time.perf_counter() - before
        about[str(fold)] = {
            "c": done.c,
            "valid_uar": {f"{c:g}": v for c, v in done.valid_uar.items()},
            "uar": done.test.uar(),
            "undefined": done.undefined,
        }
        tables.append((fold, done.test))
        print(
            f"{recipe}, {extractor.name}, fold {fold}: C {done.c:g}, UAR {done.test.uar():.3f}",
            flush=True,
        )
    stem = Path(recipe).stem
    path = write / f"{stem}-{extractor.name}.csv"
    write.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "fold", *tables[0][1].classes])
        for fold, table in tables:
            for i, scores in zip(table.ids, table.scores.tolist(), strict=True):
                rows.writerow([i, fold, *scores])
    entry: dict[str, Any] = {
        "features": extractor.name,
        "opensmile": extractor.version,
        "sklearn": sklearn.__version__,
        "folds": about,
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "seconds_total": round(time.perf_counter() - began, 1),
    }
    if len({i for _, t in tables for i in t.ids}) == sum(len(t) for _, t in tables):
        interval = jackknife(merge(t for _, t in tables))
        entry["uar"] = {"value": interval.value, "low": interval.low, "high": interval.high}
        print(
            f"{recipe}, {extractor.name}: UAR {interval.value:.3f} (95 % interval over speakers "
            f"{interval.low:.3f} to {interval.high:.3f})"
        )
    path.with_suffix(".json").write_text(json.dumps(entry, indent=1) + "\n", "utf-8")
    print(f"predictions: {path}")
    return path


def bring(name: str, path: Path, recipe: str, extractor: Extractor, out: str) -> Imported:
    """What :func:`run` wrote, as a row of the suite called ``svm_<features>``."""
    return import_predictions(
        name,
        path,
        name=f"svm_{extractor.name}",
        recipe=Path(recipe).stem,
        columns=Columns(fold="fold"),
        scores="ranks",
        toolkit=f"openSMILE {extractor.version}, {extractor.name}, linear SVM",
        selection="highest UAR on validation speakers, smallest C of equals",
        out=out,
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="functionals and a linear SVM in a suite's table")
    parser.add_argument("suite", help="a shipped suite or a YAML file")
    parser.add_argument("recipes", nargs="*", help="of the suite (default: all)")
    parser.add_argument("--features", default="eGeMAPSv02", choices=FEATURES)
    parser.add_argument("--out", default="runs", help="folder of all runs (default: runs)")
    parser.add_argument("--write", help="write predictions into this folder, import nothing")
    arguments = parser.parse_args(argv)
    extractor = opensmile_extractor(arguments.features)
    folder = Path(arguments.out) / Path(arguments.suite).stem
    write = Path(arguments.write) if arguments.write else folder / "imported"
    for recipe in arguments.recipes or suite.load(arguments.suite).axes["recipe"]:
        path = run(arguments.suite, recipe, extractor, write)
        if not arguments.write:
            done = bring(arguments.suite, path, recipe, extractor, arguments.out)
            print(f"{len(done.cells)} cells; `serzoo report {folder.name}` tabulates them")


if __name__ == "__main__":
    main()
