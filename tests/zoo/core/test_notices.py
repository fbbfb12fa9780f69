"""What is found in the data is told once, to a program as a warning, to a person as a line."""

import io
import sys
import warnings

import pytest
from serzoo.zoo.core.errors import DataNote, DataWarning
from serzoo.zoo.core.notices import RANKS, collected, on_terminal, shown, tell


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)


def test_a_program_gets_warnings():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tell("2 files are gone")
        tell("1 file is odd", fault=False)
    assert [(w.category, str(w.message)) for w in caught] == [
        (DataWarning, "2 files are gone"),
        (DataNote, "1 file is odd"),
    ]


def test_a_person_gets_each_text_once_on_standard_error(capsys):
    with on_terminal():
        for _ in range(3):
            tell("2 files are gone")
            warnings.warn("2 files are gone", DataWarning, stacklevel=1)  # from somewhere else
            tell("1 file is odd", fault=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["warning: 2 files are gone", "note: 1 file is odd"]
    with on_terminal():  # the next command
        tell("2 files are gone")
    assert capsys.readouterr().err == "warning: 2 files are gone\n"


def test_a_cell_keeps_what_it_is_told_and_writes_it_to_its_log():
    with warnings.catch_warnings(record=True) as caught, collected() as kept:
        warnings.simplefilter("always")
        tell("2 files are gone")
        warnings.warn("another matter", UserWarning, stacklevel=1)
    assert kept == [("2 files are gone", True)]
    assert len(caught) == 2


def test_filters_that_others_set_meanwhile_hide_nothing(capsys):
    with on_terminal():
        warnings.filterwarnings("ignore", ".*nobody needs.*")
        warnings.warn("what nobody needs", UserWarning, stacklevel=1)
        tell("2 files are gone")
    assert capsys.readouterr().err == "warning: 2 files are gone\n"


def test_warnings_of_others_are_left_as_they_are(capsys):
    with pytest.warns(UserWarning, match="another matter"), on_terminal():
        warnings.warn("another matter", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", RANKS)
def test_of_several_processes_only_the_first_one_speaks(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell("2 files are gone")
    for first in ("0", ""):
        monkeypatch.setenv(name, first)
        with pytest.warns(DataWarning):
            tell("2 files are gone")


def test_a_wall_of_text_is_cut_but_not_its_end(capsys):
    with on_terminal():
        tell("; ".join(["30 of 1440", *(f"speaker {i}" for i in range(30)), "unpack it again"]))
        tell("; ".join("abcdefg"))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: 30 of 1440; speaker 0; ")
    assert first.endswith("; and 26 more like these; unpack it again")
    assert second == "warning: a; b; c; d; e; f; g"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.wav", "plain.wav"),
        ("ä 語.wav", "ä 語.wav"),
        ("a\udcfcb.wav", r"a\xfcb.wav"),
        ("\udcff\udcfe", r"\xff\xfe"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_any_name_can_be_written(monkeypatch, name, text):
    assert shown(name) == text
    strict = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", strict)
    with on_terminal():
        tell(name)
    strict.flush()
    assert strict.buffer.getvalue().decode() == f"warning: {text}\n"
