"""Checkpoints that were cut off, changed or made by others are refused; a run goes on."""

from __future__ import annotations

import errno
import json
import pickle
import resource
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import CheckpointError, DataWarning, SerzooError
from serzoo.zoo.run import checkpoint
from serzoo.zoo.run.config import load
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.run.train import run_folder, train
from states import assert_same

EPOCHS = 3


def configured(recipe: str, out: Path) -> RunConfig:
    return load(recipe, [f"trainer.out={out}", f"optim.epochs={EPOCHS}"])


@pytest.fixture(scope="module")
def whole(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to."""
    cfg = configured(tiny_recipe, tmp_path_factory.mktemp("whole"))
    train(cfg)
    return run_folder(cfg)


@pytest.fixture(scope="module")
def cut(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, ended within its last epoch."""
    cfg = configured(tiny_recipe, tmp_path_factory.mktemp("cut"))
    start = SERModule.on_train_epoch_start

    def power_cut(module: SERModule) -> None:
        if module.current_epoch == EPOCHS - 1:
            raise ZeroDivisionError
        start(module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SERModule, "on_train_epoch_start", power_cut)
        with pytest.raises(ZeroDivisionError):
            train(cfg)
    return run_folder(cfg)


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda b: b[: len(b) // 2],
    "all but its end": lambda b: b[:-10],
    "empty": lambda b: b"",
    "a web page": lambda b: b"<html>404 Not Found</html>",
    "zeros": lambda b: bytes(len(b)),
    "a bit": lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1 :],
}


def spoil(path: Path, how: str = "half") -> None:
    path.write_bytes(DAMAGE[how](path.read_bytes()))


# A run that is resumed.


@pytest.fixture
def resumed(
    cut: Path, tiny_recipe: str, tmp_path: Path
) -> Callable[..., tuple[Path, dict[str, Any], list[str]]]:
    """Damages files of a copy of the cut run, and trains on: its folder, record and warnings."""

    def go_on(**damage: str) -> tuple[Path, dict[str, Any], list[str]]:
        cfg = configured(tiny_recipe, tmp_path)
        shutil.copytree(cut, run_folder(cfg))
        for name, how in damage.items():
            path = run_folder(cfg) / "checkpoints" / f"{name}.ckpt"
            path.unlink() if how == "gone" else spoil(path, how)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            entry = train(cfg)
        return run_folder(cfg), entry, [str(w.message) for w in caught]

    return go_on


@pytest.mark.parametrize(
    ("damage", "source"),
    [
        ({}, True),
        ({"last": "half"}, "best.ckpt, epoch 0"),
        ({"last": "empty"}, "best.ckpt, epoch 0"),
        ({"last": "a bit"}, "best.ckpt, epoch 0"),
        ({"last": "gone"}, "best.ckpt, epoch 0"),
        ({"last": "half", "best": "half"}, False),
        ({"best": "half"}, False),
        ({"best": "gone"}, False),
    ],
)
def test_a_run_goes_on_from_what_can_be_read_to_the_same_end(
    damage: dict[str, str], source: Any, whole: Path, resumed: Callable[..., Any]
) -> None:
    out, entry, told = resumed(**damage)
    assert entry.resumed == source
    names = [f"{name}.ckpt.kept" for name, how in damage.items() if how != "gone"]
    if "best" in damage and "last" not in damage:  # whose end would be another's
        names.append("last.ckpt.kept")
    kept = sorted(p.name for p in (out / "checkpoints").glob("*.kept"))
    assert kept == sorted(names)
    assert len(told) == len(kept)
    for line in told:
        assert ("best.ckpt, epoch 0" if source else "starts again") in line
    ours, theirs = (torch.load(f / "checkpoints" / "last.ckpt") for f in (out, whole))
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert_same(ours[part], theirs[part], part)
    for name in ("predictions.jsonl", "valid.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_processes_of_a_run_agree_whoever_looks_first(cut: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for damage in ({"last": "half"}, {"best": "half"}, {"last": "zeros", "best": "empty"}):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(cut / "checkpoints", folder)
        for name, how in damage.items():
            spoil(folder / f"{name}.ckpt", how)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [checkpoint.newest(folder, aside=aside) for aside in (False, True, False)]
        assert len({str(f and f[0].name) for f in found}) == 1


def test_what_is_not_ours_or_of_another_format_stops_the_run(cut: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(cut / "checkpoints", folder)
    for content, found in (({"a": torch.ones(1)}, "serzoo"), ({"serzoo": {"format": 2}}, "2")):
        torch.save(content, folder / "last.ckpt")
        with pytest.raises(CheckpointError, match=found):
            checkpoint.newest(folder, aside=True)
        assert (folder / "last.ckpt").is_file()


def test_what_the_system_refuses_is_no_damage(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be opened today may be whole tomorrow."""
    shutil.copytree(cut / "checkpoints", tmp_path / "checkpoints")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "last.ckpt")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        checkpoint.newest(tmp_path / "checkpoints", aside=True)
    assert not list(tmp_path.rglob("*.kept"))


def test_a_full_disk_leaves_the_checkpoint_that_was_there(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    shutil.copy(cut / "checkpoints" / "last.ckpt", path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a disk that is full: it is real
    try:
        with pytest.raises(OSError, match=r"last\.ckpt") as caught:
            checkpoint.WholeFiles().save_checkpoint({"a": torch.ones(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Reading.


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_one_line_and_exit_code_2(
    how: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    spoil(run / "checkpoints" / "best.ckpt", how)
    for verb, *rest in (
        ("predict", str(tmp_path / "a.wav")), ("eval",), ("save", str(tmp_path / "model")),
        ("export", str(tmp_path / "a.onnx")), ("adapt", "data=csv", "shots=1"),
        ("push", "me/model"), ("probe", "data=csv"),
    ):  # fmt: skip
        assert main([verb, str(run), *rest]) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"serzoo {verb}: ")
        assert "best.ckpt" in err
        assert err.count("\n") == 1
        assert out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_no_flipped_byte_changes_what_is_read(tmp_path: Path) -> None:
    content = {"serzoo": {"format": 1, "name": "a"}, "state_dict": {"w": torch.arange(50.0)}}
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    data = path.read_bytes()
    refused = 0
    for at in np.random.default_rng(0).integers(0, len(data), 200):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            found = checkpoint.read(path)
        except CheckpointError:
            refused += 1
            continue
        assert found["serzoo"] == content["serzoo"]  # a date, or padding
        assert torch.equal(found["state_dict"]["w"], content["state_dict"]["w"])
    assert refused > 50


@pytest.mark.parametrize("part", ["config", "taxonomy", "taxonomy_fingerprint", "state_dict"])
@pytest.mark.parametrize("value", [None, 3, "x", [], {}, {"a": {"b": 1}}])
def test_metadata_that_make_no_sense_are_a_checkpoint_error(
    part: str, value: Any, whole: Path, tmp_path: Path
) -> None:
    content = torch.load(whole / "checkpoints" / "best.ckpt")
    where = content if part == "state_dict" else content["serzoo"]
    content.pop("ema")
    where[part] = value
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(SerzooError):
        SERModule.load_from_checkpoint(tmp_path / "a.ckpt")


def test_nothing_is_unpickled_by_any_reader(
    whole: Path, tiny_recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = configured(tiny_recipe, tmp_path)
    out = run_folder(cfg)
    shutil.copytree(whole, out)
    (out / "record.json").unlink()
    for name in ("best", "last"):
        evil = {"serzoo": {"format": 1}, "state_dict": Payload(tmp_path / "executed")}
        torch.save(evil, out / "checkpoints" / f"{name}.ckpt")
        (out / "checkpoints" / f"{name}.pickle").write_bytes(pickle.dumps(evil))
    for path in (out, *(out / "checkpoints").iterdir()):
        assert main(["predict", str(path), str(tmp_path)]) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert train(cfg).resumed is False
    assert not (tmp_path / "executed").exists()


def test_a_run_that_was_moved_keeps_its_best_epoch(
    whole: Path, resumed: Callable[..., Any]
) -> None:
    """Its paths are in its checkpoints; the score of the best epoch is, too."""
    _, entry, _ = resumed()
    assert entry.selection == json.loads((whole / "record.json").read_text())["selection"]
