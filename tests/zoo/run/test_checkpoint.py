"""Checkpoints: what they leave out, what they refuse, and that nothing in them is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from facts import says, tells
from serzoo.zoo.core.errors import CheckpointError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.weights import FORMAT, check_keys, strip_frozen
from serzoo.zoo.run.checkpoint import read
from serzoo.zoo.run.module import SERModule
from torch import Tensor

TAXONOMY = Taxonomy.of(["angry", "happy", "sad"])


def content(**meta: Any) -> dict[str, Any]:
    return {
        "state_dict": {"head.w": torch.ones(2)},
        "serzoo": {
            "format": FORMAT,
            "config": {},
            "taxonomy": TAXONOMY.to_dict(),
            "taxonomy_fingerprint": TAXONOMY.fingerprint,
            **meta,
        },
    }


def save(path: Path, what: Any) -> Path:
    torch.save(what, path)
    return path


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


# Reading.


def test_plain_containers_and_tensors_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", content(note=[1, "x", None]))
    found = read(path)
    assert found["serzoo"]["note"] == [1, "x", None]
    assert torch.equal(found["state_dict"]["head.w"], torch.ones(2))


def test_a_run_s_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    save(tmp_path / "checkpoints" / "best.ckpt", content(which="best"))
    save(tmp_path / "checkpoints" / "last.ckpt", content(which="last"))
    assert read(tmp_path)["serzoo"]["which"] == "best"


@pytest.mark.parametrize("name", ["a.ckpt", "."])
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        CheckpointError, match=says(tmp_path, "checkpoints/best.ckpt", "serzoo save")
    ):
        read(tmp_path / name)


def test_code_is_refused_and_not_executed(tmp_path: Path) -> None:
    path = save(tmp_path / "evil.ckpt", {**content(), "extra": Payload(tmp_path / "executed")})
    with pytest.raises(CheckpointError, match=says("evil.ckpt", "containers")):
        read(path)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)  # it would have been
    assert (tmp_path / "executed").exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", content())
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=says("a.ckpt", "damaged")):
            read(path)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_text("no checkpoint\n" * 100)
    with pytest.raises(CheckpointError, match=says("a.ckpt", "damaged")):
        read(path)


@pytest.mark.parametrize("foreign", [{"state_dict": {}}, [1, 2], torch.ones(3)])
def test_a_foreign_file_is_refused(tmp_path: Path, foreign: Any) -> None:
    path = save(tmp_path / "a.ckpt", foreign)
    with pytest.raises(CheckpointError, match=says("a.ckpt", "serzoo train")):
        read(path)


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_another_format_is_refused(tmp_path: Path, number: Any) -> None:
    path = save(tmp_path / "a.ckpt", content(format=number))
    with pytest.raises(CheckpointError, match=says("a.ckpt", f"format {number!r}", 1)):
        read(path)


def test_metadata_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", {"serzoo": 1, "state_dict": {}})
    with pytest.raises(CheckpointError, match=says("format None", 1)):
        read(path)


# Building.


def test_a_tampered_order_of_classes_is_refused(tmp_path: Path) -> None:
    other = Taxonomy.of(["happy", "angry", "sad"])
    path = save(tmp_path / "a.ckpt", content(taxonomy=other.to_dict()))
    with pytest.raises(CheckpointError) as caught:
        SERModule.load_from_checkpoint(path)
    assert tells(str(caught.value), other.fingerprint, TAXONOMY.fingerprint, "order")


def test_a_module_trained_by_hand_cannot_be_loaded_by_itself(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", {"state_dict": {}, "serzoo": {"format": 1, "head": {}}})
    with pytest.raises(
        CheckpointError, match=says("config, taxonomy, taxonomy_fingerprint", "restore()")
    ):
        SERModule.load_from_checkpoint(path)


# Keys.

OWN = {
    "encoder.hf.w": torch.zeros(5),
    "encoder.mix": torch.zeros(3),
    "head.w": torch.zeros(4, 2),
    "head.b": torch.zeros(4),
}
FROZEN = frozenset({"encoder.hf.w"})


def test_frozen_keys_are_left_out() -> None:
    assert list(strip_frozen(OWN, FROZEN)) == ["encoder.mix", "head.w", "head.b"]
    assert strip_frozen(OWN, frozenset()) == OWN
    # a name that only begins alike is another's
    assert "encoder.hfx" in strip_frozen({**OWN, "encoder.hfx": torch.zeros(1)}, FROZEN)


def test_exactly_what_is_saved_fits() -> None:
    check_keys(strip_frozen(OWN, FROZEN), OWN, FROZEN)
    check_keys(OWN, OWN, frozenset())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.b": None}, r"lacks 1 .*\(head\.b\)"),
        ({"head.c": torch.zeros(1)}, r"holds 1 .*\(head\.c\)"),
        ({"encoder.hf.w": torch.zeros(5)}, r"holds 1 .*\(encoder\.hf\.w\)"),
        (
            {"head.w": torch.zeros(3, 2)},
            r"\b1 .*\(head\.w: \[3, 2\] .*checkpoint, \[4, 2\] here\)",
        ),
        (
            {"head.b": None, "head.c": torch.zeros(1)},
            r"lacks 1 .*\(head\.b\); holds 1 .*\(head\.c\)",
        ),
    ],
)
def test_anything_else_is_told(change: dict[str, Tensor | None], message: str) -> None:
    merged = {**strip_frozen(OWN, FROZEN), **change}
    saved = {k: v for k, v in merged.items() if v is not None}
    with pytest.raises(CheckpointError, match=message):
        check_keys(saved, OWN, FROZEN)


def test_many_names_are_shortened() -> None:
    own = {f"w{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(CheckpointError, match=says(5, "w0, w1, w2, ...")):
        check_keys({}, own, frozenset())
