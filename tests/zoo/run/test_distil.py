"""`serzoo distil`: pieces of speech, the teacher's frames of them, and a student's training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import says
from safetensors import safe_open
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.encoders.hf import HFEncoder
from serzoo.zoo.encoders.small import PEAK, Shape, SmallEncoder, Student, read_student
from serzoo.zoo.run import distil, targets
from waves import speech

SMALL = ["student.dim=64", "student.heads=[1,1]", "student.hidden=[48,16]", "progress=false"]
QUICK = [*SMALL, "epochs=2", "lr=0.05", "batch_size=4", "held_out=0.2", "precision=32-true"]


@pytest.fixture
def talk(tmp_path: Path, write_wave: Callable[..., Path]) -> Path:
    """Ten recordings of 2.5 s."""
    for i in range(10):
        write_wave(tmp_path / "talk" / f"{i}.wav", speech(40_000, i).numpy())
    return tmp_path / "talk"


@pytest.fixture
def teacher(tiny_hf: Callable[..., str]) -> str:
    """A Whisper whose first block has the size of the student's."""
    return tiny_hf(
        "whisper", "none", d_model=64, encoder_attention_heads=1, max_source_positions=500
    )


@pytest.fixture
def words(talk: Path, teacher: str, tmp_path: Path) -> list[str]:
    """The settings of a quick distillation."""
    more = [f"teacher.name={teacher}", "teacher.layers=[1,2,3]", "teacher.revision=null"]
    return [f"data=[{talk}]", f"out={tmp_path / 'out'}", *more, *QUICK]


def metrics(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the log."""
    head, *rows = (folder / "log" / "metrics.csv").read_text().splitlines()
    return [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]


def weights(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118


# The pieces, and the teacher's frames of them.


def test_pieces_hold_the_file_and_silence_at_its_ends(talk: Path) -> None:
    plan = targets.Plan("talk/0.wav", talk / "0.wav", 0, False)
    both = {len(p) for seed in range(12) for p in targets.pieces(plan, seed)}
    assert min(both) == 40_000  # a rest of less than a second stays with its piece
    assert max(both) > 41_000
    for piece in targets.pieces(plan, 0):
        assert abs(piece).max() == pytest.approx(PEAK)


def test_a_copy_has_another_speed(talk: Path) -> None:
    plans = [targets.Plan("talk/0.wav", talk / "0.wav", copy, False) for copy in range(4)]
    lengths = [sum(len(p) for p in targets.pieces(plan, 3)) for plan in plans]
    assert len(set(lengths)) == 4
    again = [sum(len(p) for p in targets.pieces(plan, 3)) for plan in plans]
    assert again == lengths


def test_frames_are_averaged_on_the_grid_of_the_student() -> None:
    hidden = torch.arange(9.0)[None, :, None]
    mask = torch.arange(9) < 8
    cells = targets.pooled(hidden, mask, 0.02, 0.08, 3)
    assert cells[:, 0, 0].tolist() == [1.5, 5.5, 5.5]  # the last cell has no frame


def test_the_teacher_is_asked_once(talk: Path, teacher: str, tmp_path: Path) -> None:
    encoder = HFEncoder(name=teacher, layers=[1, 2], window="auto").eval()
    options: dict[str, Any] = {
        "copies": 1, "seed": 0, "stride": 1280, "held_out": 0.2, "progress": False,
    }  # fmt: skip
    files = targets.recordings([talk])
    first = targets.make_targets(tmp_path / "t", files, encoder, facts={"teacher": "a"}, **options)
    encoder.extract = None  # type: ignore[assignment,method-assign]
    again = targets.make_targets(tmp_path / "t", files, encoder, facts={"teacher": "a"}, **options)
    assert first == again
    train, valid = (targets.Taught(first, 1280, held_out=h) for h in (False, True))
    assert (len(train), len(valid)) == (8, 2)
    batch = train[[0, 3]]
    assert batch["frames"].shape[1:] == (-(-int(batch["lengths"].max()) // 1280), 2, 64)
    assert batch["frames"].dtype == torch.float16
    with pytest.raises(ConfigError, match=says("teacher", tmp_path / "t")):
        targets.make_targets(tmp_path / "t", files, encoder, facts={"teacher": "b"}, **options)


# The training.


def test_a_student_learns_and_is_an_encoder(words: list[str], tmp_path: Path) -> None:
    cfg = distil.load("serzoo-small", words)
    facts = distil.distil(cfg)
    rows = [r for r in metrics(tmp_path / "out") if r["valid/frame"]]
    assert len(rows) == 2
    assert facts["start"] == "teacher"
    assert facts["speech"]["pieces"] == 10
    assert facts["epochs_done"] == 2
    path = tmp_path / "out" / "student.safetensors"
    student, kept = read_student(path)
    assert kept == json.loads(json.dumps(facts))
    assert student.shape == Shape(80, 64, (1, 1), (48, 16))
    encoder = SmallEncoder(weights=str(path), layers=[2])
    hidden, mask = encoder.extract(speech(4000)[None], torch.tensor([4000]))
    assert hidden.shape == (1, 1, 4, 64)
    assert mask.all()


def test_the_error_falls(words: list[str], tmp_path: Path) -> None:
    distil.distil(distil.load("serzoo-small", [*words, "start=new", "epochs=8"]))
    errors = [float(r["valid/frame"]) for r in metrics(tmp_path / "out") if r["valid/frame"]]
    assert errors[-1] < 0.9 * errors[0]


def test_a_stopped_training_goes_on_and_ends_alike(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distil.load("serzoo-small", words)
    distil.distil(whole)
    wanted = weights(tmp_path / "out" / "student.safetensors")
    broken = distil.load("serzoo-small", [*words, f"out={tmp_path / 'broken'}"])
    step = distil.Distillation.training_step

    def stop(self: Any, *given: Any) -> Any:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(distil.Distillation, "training_step", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            distil.distil(broken)
    assert len(weights(tmp_path / "broken" / "student.safetensors")) == len(wanted)
    facts = distil.distil(broken)
    assert facts["epochs_done"] == 2
    found = weights(tmp_path / "broken" / "student.safetensors")
    assert all(torch.equal(found[k], v) for k, v in wanted.items())
    assert distil.distil(broken) == json.loads(json.dumps(facts))  # a finished one is not repeated


def test_a_student_starts_from_the_teacher_s_first_block(teacher: str) -> None:
    encoder = HFEncoder(name=teacher, layers=[1]).eval()
    student = Student(Shape(80, 64, (1, 1), (48, 16)))
    assert distil.copy_front(student, encoder)
    x = torch.randn(2, 7, 64)
    theirs = encoder.family.blocks[0](x, None)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    assert torch.allclose(student.blocks[0](x, None), theirs, atol=1e-5)
    assert not distil.copy_front(Student(Shape(80, 64, (1, 1), (32, 16))), encoder)


def test_a_student_starts_from_a_file(words: list[str], tmp_path: Path) -> None:
    distil.distil(distil.load("serzoo-small", [*words, "epochs=1"]))
    first = tmp_path / "out" / "student.safetensors"
    more = [*words, f"out={tmp_path / 'more'}", f"start={first}", "epochs=1"]
    assert distil.distil(distil.load("serzoo-small", more))["start"] == "student.safetensors"
    with pytest.raises(ConfigError, match=says("start", "student", "dim")):
        distil.distil(distil.load("serzoo-small", [*more, "student.dim=128"]))


# The verb and its refusals.


def test_the_verb_prints_where_the_weights_are(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distil", "serzoo-small", *words, "epochs=1"]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "out" / "student.safetensors") in said
    assert "10 pieces" in said


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (["data="], ["data", "FOLDER"]),
        (["out="], ["out", "FOLDER"]),
        (["data=[nowhere]"], ["nowhere", "data=FOLDER"]),
        (["epochs=0"], ["epochs"]),
        (["epoch=3"], ["epoch", "epochs"]),
        (["teacher.encoder=functionals"], ["functionals", "whisper-base"]),
        (["teacher.encoder=logmel"], ["logmel", "whisper-base"]),
        (["teacher.encoder=tiger"], ["tiger"]),
        (["start=nowhere.safetensors"], ["nowhere.safetensors", "serzoo distil"]),
        (["precision=bf16-true"], ["precision", "bf16-true"]),
    ],
)
def test_a_wrong_setting_is_refused(
    change: list[str], facts: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if change[0].startswith("teacher.encoder"):
        words = [w for w in words if not w.startswith("teacher.")]
    assert main(["distil", "serzoo-small", *words, *change]) == 2
    said = capsys.readouterr().err
    assert all(fact in said for fact in facts), said


def test_an_empty_folder_and_short_speech_are_refused(
    words: list[str], tmp_path: Path, write_wave: Callable[..., Path]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no speech")
    with pytest.raises(DataError, match=says("no speech", empty, "1 txt")):
        distil.distil(distil.load("serzoo-small", [*words, f"data=[{empty}]"]))
    write_wave(empty / "short.wav", seconds=0.3)
    with pytest.raises(DataError, match=says("1 file", "0.5 s")):
        distil.distil(distil.load("serzoo-small", [*words, f"data=[{empty}]", "held_out=0"]))


def test_a_place_that_cannot_be_written_is_told_before_the_teacher_is_loaded(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr(distil, "build_teacher", lambda node: pytest.fail("the teacher is loaded"))
    with pytest.raises(OSError, match=says("taken")):
        distil.distil(distil.load("serzoo-small", [*words, f"out={tmp_path / 'taken'}"]))


def test_a_file_of_settings_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: speech\nout: here\nteacher: {encoder: wavlm-base, layers: [4]}\n")
    cfg = distil.load(str(path), ["teacher.layers=[5]"])
    assert cfg.data == ["speech"]
    assert cfg.teacher == {"encoder": "wavlm-base", "layers": [5]}
    with pytest.raises(ConfigError, match=says("none.yaml", "serzoo-small")):
        distil.load("none.yaml")
