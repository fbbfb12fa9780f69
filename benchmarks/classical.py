"""The classical anchor: functionals of openSMILE and a linear SVM, in every table of a comparison.

    pip install 'serzoo[classical]'
    serzoo compare head_to_head                                     # first
    python benchmarks/classical.py head_to_head                     # eGeMAPSv02
    python benchmarks/classical.py head_to_head --features ComParE_2016

It gets what the comparison's heads got: training speakers, taxonomy, folds, class weights,
corrupted test audio and supports. Features are standardised by mean and deviation of the training
part. If the heads' speakers were normalised (``data.normalise``), so are the anchor's. C is chosen
by UAR on the fold's validation speakers (the smallest of equal ones). What was fitted on the
training part is tested once. With few shots there is no validation part. So features are
standardised and C is chosen on the source, and the SVM is fitted on the support alone. Without a
shot it is that of the source. Predictions become rows by ``serzoo compare import``. Feature sets:
Eyben et al. 2016 (eGeMAPS), Schuller et al. 2016 (ComParE); the grid of C is our choice.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from functionals import FEATURES, Extractor, Functionals, opensmile_extractor
from serzoo.datamodules.corruption import remembered
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.fewshot import Support, open_few_shot
from serzoo.datamodules.protocols import speaker_of
from serzoo.zoo.compare.imported import Columns, import_predictions
from serzoo.zoo.core.errors import ComparisonError, DataError
from serzoo.zoo.core.files import new_file, write_json
from serzoo.zoo.core.normalising import SpeakerNormaliser
from serzoo.zoo.core.speakers import NONE
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.report.report import report
from serzoo.zoo.report.runs import Run, find_cells
from serzoo.zoo.run.build import open_data
from serzoo.zoo.run.record import Record, SuiteRecord, read_plan, read_record
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.statistics.table import PredictionTable
from svm import GRID, Fitted, Values, fit

SELECTED = "highest UAR on validation speakers, smallest C of equals"
FEW = "C and scales of the source's training, fitted on the support alone"


class Normalised:
    """Features without what is common to a speaker, as the heads of a table get them.

    Args:
        way: ``data.normalise`` of the heads.
    """

    def __init__(self, way: str) -> None:
        self.way = way
        self._normaliser: SpeakerNormaliser | None = None
        self._usual: Values | None = None

    def of(self, part: SpeechDataset, x: Values, *, learn: bool = False) -> Values:
        """Return ``[N, F]`` features of a part; NaN becomes the mean of the training part.

        Args:
            part: its utterances and speakers.
            x: ``[N, F]``.
            learn: it is the training part, whose speakers are measured by random utterances.
        """
        if self.way == NONE:
            return x
        if self._usual is None:
            if not learn:
                raise ValueError("the training part was not measured; give it first")
            known = np.isfinite(x)
            self._usual = np.where(known, x, 0.0).sum(0) / known.sum(0).clip(1)
            self._normaliser = SpeakerNormaliser(self.way, (1, x.shape[1]))
        assert self._normaliser is not None
        rows = torch.from_numpy(np.where(np.isfinite(x), x, self._usual)).float()
        ids = [u.id for u in part.utterances]
        speakers = [speaker_of(u) for u in part.utterances]
        self._normaliser.enrol([(ids, speakers, rows)], learn=learn)
        draw = torch.Generator().manual_seed(1) if learn else None
        found: Values = (rows - self._normaliser.offsets(ids, draw)).double().numpy()
        return found


@dataclass
class Anchor:
    """Answers beside a comparison's cells; what several of them share is fitted once.

    Attributes:
        plan: of the comparison.
        features: of utterances.
        grid: values of C.
        seconds: spent on fitting.
    """

    plan: SuiteRecord
    features: Functionals
    grid: Sequence[float] = GRID
    seconds: float = 0.0
    _fitted: dict[str, tuple[Any, Fitted, Normalised]] = field(default_factory=dict)

    def trained(self, cfg: RunConfig) -> tuple[Any, Fitted, Normalised]:
        """The data of a run, the SVM of its training and validation parts, and its normaliser."""
        cfg.trainer.progress = False
        seed = cfg.seed if cfg.data.train_share < 1 else None  # who is in the share
        what = [cfg.corpus, cfg.protocol, cfg.fold, cfg.taxonomy, cfg.to_dict()["data"], seed]
        key = json.dumps(what, sort_keys=True, default=str)
        if key not in self._fitted:
            data = open_data(cfg)
            sets, normalised = data.datasets, Normalised(cfg.data.normalise)
            parts = {
                k: (sets[k], normalised.of(sets[k], self._of(sets[k]), learn=k == "train"))
                for k in ("train", "valid")
            }
            began = time.perf_counter()
            fitted = fit(
                parts["train"],
                parts["valid"],
                data.taxonomy.classes,
                balance=cfg.data.balance,
                grid=self.grid,
            )
            self.seconds += time.perf_counter() - began
            self._fitted[key] = data, fitted, normalised
        return self._fitted[key]

    def answer(self, run: Run) -> tuple[PredictionTable, Fitted]:
        """What the SVM says to a cell's test part.

        Raises:
            DataError: when the data are not those that the cell was tested on.
        """
        record = run.record
        if record.kind == "adaptation":
            return self._adapted(record)
        data, fitted, normalised = self.trained(RunConfig.from_dict(record.config))
        split = data.split.fingerprint()
        if (data.speech.sha, split) != (record.data["manifest"], record.data["split"]):
            raise DataError(
                f"{run.name} was trained and tested on other data than there are now; give these "
                "back, or compare again"
            )
        test = data.datasets["test"]
        corruption = record.condition if record.corruption is not None else None
        if corruption in (None, "clean"):
            test.corruption = None
        else:
            test.corrupt(remembered(corruption, noise=self.plan.noise, rir=self.plan.rir))
        x = normalised.of(test, self._of(test))
        return fitted.table(test, x, data.taxonomy.classes), fitted

    def _adapted(self, record: Record) -> tuple[PredictionTable, Fitted]:
        """The SVM of a support; without a shot, that of the source."""
        source = read_record(Path(record.source["path"]))
        if source is None:
            raise DataError(
                f"{record.source['path']} holds no record of the source; train the source again"
            )
        trained = Taxonomy.from_dict(record.source["taxonomy"])
        data, fitted, normalised = self.trained(RunConfig.from_dict(source.config))
        cfg, taxonomy = RunConfig.from_dict(record.config), trained
        if wanted := self.plan.target.get("taxonomy"):
            taxonomy = Taxonomy.load(wanted)
        if taxonomy.classes != data.taxonomy.classes:
            raise ComparisonError(
                f"the source's classes are {', '.join(data.taxonomy.classes)}, the target's "
                f"{', '.join(taxonomy.classes)}: no SVM of the source answers without a shot"
            )
        shot = open_few_shot(
            cfg.corpus,
            protocol=cfg.protocol,
            fold=cfg.fold,
            taxonomy=taxonomy,
            shots=record.shots,
            draw=record.draw,
            given=Support.read(record.support["file"]),
            root=cfg.data.root,
            manifest=cfg.data.manifest,
            options=cfg.data.options,
            label=cfg.data.label,
            unknown_speakers=cfg.data.unknown_speakers,
            max_seconds=cfg.data.max_seconds,
        )
        parts = shot.data.datasets
        if record.shots:
            train = (parts["train"], normalised.of(parts["train"], self._of(parts["train"])))
            balance = cfg.data.balance
            fitted = fit(
                train, None, taxonomy.classes, balance=balance, grid=[fitted.c], scale=fitted.scale
            )
        x = normalised.of(parts["test"], self._of(parts["test"]))
        return fitted.table(parts["test"], x, taxonomy.classes), fitted

    def _of(self, part: SpeechDataset) -> Values:
        return self.features.of(part).astype(np.float64)


def where_of(run: Run) -> dict[str, Any]:
    """Return by path the values that distinguish the cells of a set of answers."""
    record = run.record
    if record.kind == "adaptation":  # the same, however heads are tuned
        return {"shots": record.shots, "draw": record.draw}
    found = {f"axes.{k}": v for k, v in record.axes.items()}
    if record.corruption is not None:
        found["condition"] = record.condition
    if record.config["data"].get("train_share", 1.0) < 1:  # drawn by the seed
        found["config.seed"] = record.config["seed"]
    return found


def anchor(
    suite: str, extractor: Extractor, *, out: str = "runs", grid: Sequence[float] = GRID
) -> list[Path]:
    """Rows of a comparison that was run, called ``svm_<features>``.

    Args:
        suite: a shipped suite or a YAML file; its folder is ``out/<suite>``.
        extractor: of the features.
        out: folder of all runs.
        grid: values of C.

    Returns:
        The predictions, ``imported/*.csv`` below the comparison: ``id``, ``fold``, and a decision
        value per class. A ``.json`` beside each holds C and UAR of each fold.
    """
    import sklearn

    folder = Path(out) / Path(suite).stem
    plan = read_plan(folder)
    runs = [r for r in find_cells(folder, plan.cells).runs if r.record.imported is None]
    if not runs:
        raise ComparisonError(f"{folder} holds no finished cell; run `serzoo compare {suite}`")
    work = Anchor(plan, Functionals(extractor), grid)
    # answers to one set of places: recipe, condition, and the folds of one seed
    sets: dict[str, dict[tuple[int, int], Run]] = defaultdict(dict)
    for run in runs:
        recipe = Path(run.record.config["recipe"]).stem
        sets[json.dumps([recipe, where_of(run)])].setdefault((run.seed, run.fold), run)
    paths = []
    for key, places in sets.items():
        recipe, where = json.loads(key)
        first: dict[int, tuple[PredictionTable, Fitted]] = {}
        for (_, fold), run in sorted(places.items()):
            if fold not in first:  # a method without random choices: the same for every seed
                first[fold] = work.answer(run)
        name = re.sub(r"[^\w.-]+", "_", "-".join([recipe, *map(str, where.values())]))
        path = folder / "imported" / f"{name}-{extractor.name}.csv"
        _write(path, first)
        about = {
            "features": extractor.name,
            "opensmile": extractor.version,
            "sklearn": sklearn.__version__,
            "folds": {
                k: {"c": f.c, "valid_uar": {f"{c:g}": v for c, v in f.valid_uar.items()}}
                | {"uar": table.uar()}
                for k, (table, f) in first.items()
            },
        }
        write_json(path.with_suffix(".json"), about)
        few = "shots" in where
        done = import_predictions(
            suite,
            path,
            name=f"svm_{extractor.name}",
            recipe=recipe,
            where=where,
            columns=Columns(fold="fold"),
            scores="ranks",
            toolkit=f"openSMILE {extractor.version}, {extractor.name}, linear SVM",
            selection=FEW if few else SELECTED,
            overwrite=True,
            out=out,
        )
        print(f"{path.stem}: UAR {done.uar:.3f}, {len(done.cells)} cells", flush=True)
        paths.append(path)
    print(f"fitted in {work.seconds:.1f} s")
    return paths


def _write(path: Path, tables: dict[int, tuple[PredictionTable, Fitted]]) -> None:
    with new_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "fold", *next(iter(tables.values()))[0].classes])
        for fold, (table, _) in tables.items():
            for i, scores in zip(table.ids, table.scores.tolist(), strict=True):
                rows.writerow([i, fold, *scores])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="functionals and a linear SVM in a suite's tables")
    parser.add_argument("suite", help="a shipped suite or a YAML file, which has been run")
    parser.add_argument("--features", default=FEATURES[0], choices=FEATURES)
    parser.add_argument("--out", default="runs", help="folder of all runs (default: runs)")
    arguments = parser.parse_args(argv)
    anchor(arguments.suite, opensmile_extractor(arguments.features), out=arguments.out)
    report(Path(arguments.out) / Path(arguments.suite).stem)


if __name__ == "__main__":
    main()
