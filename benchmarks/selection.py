"""The gain of the best epoch by validation over the last one.

    SERZOO_DATA=/folder/with/ravdess python benchmarks/selection.py out.json
    python benchmarks/selection.py out.json --again

Two heads on frozen log-mel frames of RAVDESS and EMO-DB, every fold, three seeds. The encoders were
trained on the other two corpora. Every epoch is scored on validation and on test, so each rule is
judged on the same trainings:

    best    the epoch with the highest UAR on the fold's own two validation speakers
    pooled  the same on the validation speakers of all folds, without those whom the fold tests
    last    the last epoch, which needs no validation
    oracle  the epoch with the highest UAR on the test part: what no rule can know, so not compared
    more    the last epoch of a second training, which also hears the validation speakers

About 15 minutes of one core. Cells that are done are kept in the folder --work, and not repeated.
The test confusions of each rule are kept beside the result, in ``out.npz``. So ``--again`` computes
intervals and verdicts anew without training.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from serzoo.datamodules.speech import SpeechDataModule
from serzoo.zoo.core.files import write_json
from serzoo.zoo.core.table import Cell, Table, cell, p_cell, span_cell
from serzoo.zoo.run.build import assemble, open_data
from serzoo.zoo.run.checkpoint import how_built
from serzoo.zoo.run.config import load
from serzoo.zoo.run.save import save_pretrained
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.run.score import score
from serzoo.zoo.run.train import run_folder, train
from serzoo.zoo.statistics.contrasts import NEW, THESE, Answer, answers, difference
from serzoo.zoo.statistics.rates import uar_of
from serzoo.zoo.statistics.speakers import by_speaker, labelled_speakers

Array = NDArray[Any]

# a corpus, the recipe of its encoder, the epochs of its heads (those of the ablations), its folds
CORPORA = {"emodb": ("ravdess_nemo", 20, 5), "ravdess": ("emodb_nemo", 15, 6)}
HEADS = ("classification", "gen_ser")
RULES = ("best", "pooled", "last", "oracle")
CONTRASTS = {
    "best - last": ("best", "last"),
    "pooled - last": ("pooled", "last"),
    "pooled - best": ("pooled", "best"),
    "more - last": ("more", "last"),
    "more - best": ("more", "best"),
}
PRIMARY = ("best - last", "pooled - last", "more - best")
MARGIN = 0.01
SMALL = ["encoder.widths=[16,32,64,96]", "encoder.dim=96", "optim.epochs=6"]
BATCH = "data.batch_size=32"  # the default; recipes for an encoder from scratch have 16
QUIET = ["trainer.progress=false", "trainer.accelerator=cpu", "trainer.threads=1"]


class Curve(Callback):
    """Confusions by speaker of validation and test after every epoch."""

    def __init__(self, data: SpeechDataModule) -> None:
        self.data = data
        self.confusions: dict[str, list[Array]] = {"valid": [], "test": []}
        self.speakers: dict[str, list[str]] = {}

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Score both parts; averaged weights are in place until the module's own hook."""
        loaders = {"valid": self.data.val_dataloader(), "test": self.data.test_dataloader()}
        for part, loader in loaders.items():
            table = score(module, loader, self.data.taxonomy)  # type: ignore[arg-type]
            self.speakers[part] = labelled_speakers(table)
            self.confusions[part].append(by_speaker(table, self.speakers[part]))

    def arrays(self) -> dict[str, Array]:
        """``valid`` and ``test`` ``[E, G, C, C]``, and the G names of each."""
        found = {part: np.stack(each).astype(np.int16) for part, each in self.confusions.items()}
        return found | {f"{part}_speakers": np.array(v) for part, v in self.speakers.items()}


def encoder(recipe: str, work: Path) -> Path:
    """A folder with a small log-mel encoder that was trained by a recipe."""
    folder = work / f"logmel_{recipe}"
    if not folder.is_dir():
        cfg = load(recipe, [*SMALL, *QUIET, f"trainer.out={work / 'runs'}"])
        train(cfg)
        save_pretrained(run_folder(cfg), folder)
    return folder


def curve(cfg: RunConfig, *, more: bool) -> dict[str, Array]:
    """Train a head on stored frames, and score every epoch.

    Args:
        cfg: of the run.
        more: train on the validation speakers as well; they are then no validation.
    """
    data = open_data(cfg)
    if more:
        split = replace(data.split, train=[*data.split.train, *data.split.valid])
        d = cfg.data
        data = SpeechDataModule(
            data.speech, split, data.taxonomy, label=d.label, batch_size=d.batch_size,
            batch_seconds=d.batch_seconds, max_seconds=d.max_seconds, balance=d.balance,
            seed=cfg.seed,
        )  # fmt: skip
    module = assemble(cfg, data, how_built(cfg, data.taxonomy))
    data.store_features(module.encoder)
    found = Curve(data)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=cfg.optim.epochs, precision=cfg.trainer.precision,
        gradient_clip_val=cfg.optim.clip or None, accumulate_grad_batches=cfg.optim.accumulate,
        use_distributed_sampler=False, num_sanity_val_steps=0, logger=False, callbacks=[found],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    return found.arrays()


def path_of(work: Path, corpus: str, head: str, seed: int, fold: int, more: bool) -> Path:
    """Where the curve of a cell is kept."""
    return work / f"{corpus}-{head}-{seed}-{fold}{'-more' * more}.npz"


def cells(work: Path, seeds: Sequence[int], heads: Sequence[str]) -> None:
    """Train what is not there yet; trainings that hear more speakers come last."""
    for more, corpus, head in product((False, True), CORPORA, heads):
        recipe, epochs, folds = CORPORA[corpus]
        from_there = [
            "encoder=trained", f"encoder.name={encoder(recipe, work)}", f"optim.epochs={epochs}",
            BATCH,
        ]  # fmt: skip
        for seed, fold in product(seeds, range(folds)):
            path = path_of(work, corpus, head, seed, fold, more)
            if path.is_file():
                continue
            own = [f"head={head}", f"seed={seed}", f"fold={fold}"]
            began = time.process_time()
            arrays = curve(load(corpus, [*from_there, *own, *QUIET]), more=more)
            seconds = time.process_time() - began
            draft = path.with_suffix(".draft.npz")
            np.savez_compressed(draft, **arrays, seconds=seconds)
            draft.replace(path)
            print(f"{path.stem}: {seconds:.1f} s of a core", flush=True)


def chosen(folds: Mapping[int, Mapping[str, Array]]) -> dict[int, dict[str, int]]:
    """The epoch that each rule takes for each fold of one training of a head.

    Args:
        folds: of each fold, what :meth:`Curve.arrays` gives. Equal scores: the earliest epoch.
    """
    found = {}
    for fold, own in folds.items():
        tested = set(own["test_speakers"].tolist())
        pooled: Array = np.zeros_like(own["valid"][:, 0], dtype=np.int64)
        for other in folds.values():
            free = [s not in tested for s in other["valid_speakers"].tolist()]
            pooled = pooled + other["valid"][:, free].sum(1)
        found[fold] = {
            "best": int(np.argmax(uar_of(own["valid"].sum(1)))),
            "pooled": int(np.argmax(uar_of(pooled))),
            "last": len(own["valid"]) - 1,
            "oracle": int(np.argmax(uar_of(own["test"].sum(1)))),
        }
    return found


def tested(
    seeds: Sequence[Mapping[int, Mapping[str, Array]]], epochs: Sequence[Mapping[int, int]]
) -> Array:
    """``[S, G, C, C]`` test confusions of all speakers, with these epochs of each seed and fold."""
    found = []
    for folds, taken in zip(seeds, epochs, strict=True):
        rows = {
            speaker: own["test"][taken[fold], i]
            for fold, own in folds.items()
            for i, speaker in enumerate(own["test_speakers"].tolist())
        }
        found.append([rows[s] for s in sorted(rows)])
    return np.array(found, dtype=np.float64)


def compared(
    of: Mapping[str, Sequence[Mapping[int, Mapping[str, Array]]]],
    more: Mapping[str, Sequence[Mapping[int, Mapping[str, Array]]]],
) -> tuple[dict[str, Any], dict[str, dict[str, Array]]]:
    """The UAR of each rule, and its ``[S, G, C, C]`` test confusions, both by head.

    Args:
        of: of each head, its seeds, their folds.
        more: the same of trainings that heard the validation speakers; a head may lack.
    """
    uar: dict[str, Any] = {}
    confusions = {}
    for head, seeds in of.items():
        epochs = [chosen(folds) for folds in seeds]
        taken = {r: tested(seeds, [{f: e[f][r] for f in e} for e in epochs]) for r in RULES}
        if head in more:
            last = [{f: len(own["test"]) - 1 for f, own in s.items()} for s in more[head]]
            taken["more"] = tested(more[head], last)
        every = [
            tested(seeds, [dict.fromkeys(s, e) for s in seeds])
            for e in range(len(seeds[0][0]["test"]))
        ]
        uar[head] = {
            "rules": {r: [float(uar_of(x)) for x in c.sum(1)] for r, c in taken.items()},
            "epochs": {r: [[x[r] for x in e.values()] for e in epochs] for r in RULES},
            "by_epoch": [float(np.mean(uar_of(c.sum(1)))) for c in every],
            "validation": [
                [[float(v) for v in uar_of(own["valid"].sum(1))] for own in s.values()]
                for s in seeds
            ],
        }
        confusions[head] = taken
    return uar, confusions


def answered(
    confusions: Mapping[str, Mapping[str, Array]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """The answers to all contrasts by head and contrast; one corpus is one family.

    Args:
        confusions: ``[S, G, C, C]`` by head and rule.
    """
    family = {
        (head, name): difference(taken[a], taken[b])
        for head, taken in confusions.items()
        for name, (a, b) in CONTRASTS.items()
        if a in taken and b in taken
    }
    primary = [key for key in family if key[1] in PRIMARY]
    found: dict[str, dict[str, dict[str, Any]]] = {head: {} for head in confusions}
    for (head, name), answer in answers(family, margin=MARGIN, primary=primary).items():
        found[head][name] = as_plain(answer)
    return found


def as_plain(answer: Answer) -> dict[str, Any]:
    """An answer as plain containers: its value, both intervals and the verdict."""
    return {
        "value": answer.value,
        THESE: answer.these._asdict(),
        NEW: answer.new._asdict(),
        "detectable": answer.detectable,
        "verdict": answer.verdict,
        "note": answer.note,
    }


def result(
    work: Path, seeds: Sequence[int], heads: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read all cells, and answer; the second is the test confusions by corpus, head and rule."""
    found: dict[str, Any] = {"seeds": list(seeds), "margin": MARGIN, "corpora": {}}
    seconds = 0.0
    kept: dict[str, Array] = {}
    for corpus, (recipe, epochs, n_folds) in CORPORA.items():
        arms: dict[bool, dict[str, list[dict[int, dict[str, Array]]]]] = {False: {}, True: {}}
        for more, head in product(arms, heads):
            paths = {
                seed: [path_of(work, corpus, head, seed, f, more) for f in range(n_folds)]
                for seed in seeds
            }
            if not all(p.is_file() for own in paths.values() for p in own):
                what = " on more speakers" * more
                print(f"{corpus}, {head}: not every training{what} is there: left out")
                continue
            arms[more][head] = []
            for own in paths.values():
                folds = {}
                for fold, path in enumerate(own):
                    with np.load(path, allow_pickle=False) as file:
                        folds[fold] = {k: file[k] for k in file.files}
                    seconds += float(folds[fold]["seconds"])
                arms[more][head].append(folds)
        uar, confusions = compared(arms[False], arms[True])
        for head, contrasts in answered(confusions).items():
            uar[head]["contrasts"] = contrasts
            for rule, cells_of in confusions[head].items():
                kept[f"{corpus}/{head}/{rule}"] = cells_of.astype(np.int16)
        found["corpora"][corpus] = {"encoder": recipe, "epochs": epochs, "heads": uar}
    return found | {"core_seconds": round(seconds, 1)}, kept


def again(found: Mapping[str, Any], kept: Mapping[str, Array]) -> dict[str, Any]:
    """A result with its contrasts computed anew; both arguments are what :func:`result` gives."""
    corpora = {}
    for corpus, of in found["corpora"].items():
        confusions: dict[str, dict[str, Array]] = {head: {} for head in of["heads"]}
        for key, array in kept.items():
            where, head, rule = key.split("/")
            if where == corpus:
                confusions[head][rule] = array.astype(np.float64)
        new = answered(confusions)
        heads = {h: {**own, "contrasts": new[h]} for h, own in of["heads"].items()}
        corpora[corpus] = {**of, "heads": heads}
    return {**found, "corpora": corpora}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The result as lines of Markdown."""
    rows, spans = [], []
    for corpus, of in found["corpora"].items():
        for head, own in of["heads"].items():
            rules = {r: float(np.mean(v)) for r, v in own["rules"].items()}
            rows.append([f"{corpus}, {head}", *(cell(rules.get(r)) for r in (*RULES, "more"))])
            for name, a in own["contrasts"].items():
                row: list[Cell | str] = [f"{corpus}, {head}, {name}", cell(a["value"], "+.3f")]
                for basis in (THESE, NEW):
                    s = a[basis]
                    row += [span_cell(s["low_family"], s["high_family"], "+.3f")]
                    row += [p_cell(s["p_family"])]
                spans.append([*row, a["verdict"]])
    means = Table("", ["corpus, head", *RULES, "more"], rows)
    columns = ["corpus, head, difference", "UAR", THESE, "p", NEW, "p", "verdict"]
    tested = Table("", columns, spans)
    return [*means.markdown().splitlines(), "", *tested.markdown().splitlines()]


def main() -> None:
    """Train, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/selection"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--heads", nargs="+", default=list(HEADS))
    parser.add_argument("--read", action="store_true", help="train nothing, read what is there")
    parser.add_argument("--again", action="store_true", help="only compute intervals anew")
    args = parser.parse_args()
    kept_in = args.out.with_suffix(".npz")
    if args.again:
        with np.load(kept_in, allow_pickle=False) as file:
            found = again(json.loads(args.out.read_text("utf-8")), dict(file))
        write_json(args.out, found)
        print("\n".join(lines(found)))
        return
    if not os.environ.get("SERZOO_DATA"):
        parser.error("set SERZOO_DATA to the folder with ravdess, emodb and nemo")
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.read:
        cells(args.work, args.seeds, args.heads)
    found, kept = result(args.work, args.seeds, args.heads)
    write_json(args.out, found)
    np.savez_compressed(kept_in, **kept)  # type: ignore[arg-type]
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
