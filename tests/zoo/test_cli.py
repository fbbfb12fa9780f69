"""The command line: verbs, exit codes, and errors without a traceback."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from facts import tells
from serzoo.zoo import cli, terminal
from serzoo.zoo.cli import main
from serzoo.zoo.core.shipped import read_yaml
from serzoo.zoo.run import config
from serzoo.zoo.run.schema import RunConfig

VERBS = (
    "list", "show", "config", "prepare", "audit", "corpus", "label", "lock", "doctor", "train",
    "eval", "adapt", "probe", "distil", "predict", "demo", "compare", "replicate", "report",
    "tensorboard", "save", "push", "export", "cache", "completion",
)  # fmt: skip
LABELS, SPEAKERS = ("angry", "happy", "sad"), ("s1", "s2", "s3", "s4", "s5")


@pytest.fixture(scope="module")
def corpus(write_wave: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder corpus: five speakers, three emotions, 0.2 s each."""
    root = tmp_path_factory.mktemp("corpus")
    for i, label in enumerate(LABELS):
        for j, speaker in enumerate(SPEAKERS):
            write_wave(root / label / f"{speaker}.wav", seconds=0.2, hz=100 + 40 * i + 7 * j)
    return root


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, with an empty cache and no corpora."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SERZOO_DATA", raising=False)
    return tmp_path


# All verbs.


def test_all_verbs_are_tested_here() -> None:
    assert cli.VERBS == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: serzoo {verb}")
    assert re.search(rf"^Example: serzoo {verb} \w", text, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        ["label", "trace"],
        ["label", "audit"],
        ["compare", "import"],
        ["compare", "ensemble"],
        ["corpus", "add"],
        ["corpus", "export"],
    ],
)
def test_every_second_word_of_a_verb_has_help(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: serzoo {' '.join(words)} ")
    assert re.search(rf"^Example: serzoo {' '.join(words)} \w", text, re.MULTILINE)


@pytest.mark.parametrize(
    "verb",
    [
        *VERBS,
        *("label trace", "label audit", "compare import", "compare ensemble"),
        *("corpus add", "corpus export"),
    ],
)
def test_every_argument_is_explained(verb: str) -> None:
    command = cli.app
    for word in verb.split():
        command = command[word]
    arguments = command.assemble_argument_collection(parse_docstring=True)
    assert len(arguments) >= 1
    assert [a.name for a in arguments if not a.parameter.help] == []


def test_the_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert tuple(re.findall(r"^│ (\w+)  ", text, re.MULTILINE)) == VERBS


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "heads"], ["train", "--help"]]
)
def test_what_needs_no_torch_does_not_import_it(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom serzoo.zoo.cli import main\n"
        "try:\n    code = main(sys.argv[1:])\nexcept SystemExit as e:\n    code = e.code\n"
        "heavy = {'torch', 'lightning', 'transformers', 'numpy', 'scipy'} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(
    ("typed", "start", "said"),
    [
        ("fly", "serzoo: ", "Available commands: list, show"),
        ("trayn ravdess", "serzoo: ", 'Did you mean "train"?'),
        ("list birds", "serzoo list: ", '"birds" for KIND. Choose from: "heads"'),
        ("list recipe", "serzoo list: ", 'Did you mean "recipes"?'),
        ("train", "serzoo train: ", "RECIPE requires an argument"),
        ("predict model", "serzoo predict: ", "FILE requires an argument"),
        ("report smoke -x", "serzoo report: ", "Unknown option: -x"),
        ("report smoke --audoi", "serzoo report: ", "Did you mean --audio?"),
        ("report smoke audio=1", "serzoo report: ", "too many words: audio=1. "),
        ("compare smoke --workers two", "serzoo compare: ", '"two" into int'),
        ("compare import smoke", "serzoo compare import: ", "FILE requires an argument"),
        ("label trace out", "serzoo label trace: ", "ID requires an argument"),
        ("cache lst", "serzoo cache: ", 'Did you mean "list"?'),
    ],
)
def test_a_wrong_command_line_is_one_line_and_ends_with_2(
    typed: str, start: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(start)
    assert said in line
    assert line.endswith(f"See `{start.removesuffix(': ')} --help`.")


def test_no_command_line_shows_the_help_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("Usage: serzoo COMMAND\n")


# Config.


def test_config_prints_what_a_run_would_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "ravdess", "head=selm", "optim.lr=1e-2", "fold=2"]) == 0
    text = capsys.readouterr().out
    cfg = config.load("ravdess", ["head=selm", "optim.lr=1e-2", "fold=2"])
    assert RunConfig.from_dict(read_yaml(text)) == cfg
    assert text.splitlines()[-1] == f"# run {cfg.fingerprint}"
    assert text.splitlines()[-2].startswith("# classes: neutral, calm, happy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "ravdes"], "no recipe config called 'ravdes'; have"),
        (["config", "ravdess", "head.hidde=3"], "head 'classification': unknown key 'hidde'; have"),
        (["config", "ravdess", "head.hidden=["], "'head.hidden=[': no valid YAML: "),
        (["train", "ravdess", "optim.epoch=3"], "unknown key 'optim.epoch'; have"),
        (["prepare", "ravdes", "root=."], "no corpus called 'ravdes'; have"),
        (["prepare", "folder"], "the folder of corpus 'folder' is unknown; set root=FOLDER"),
        (["prepare", "folder", "root=nowhere"], "no folder nowhere for corpus 'folder'; set root"),
        (
            ["prepare", "folder", "rot=."],
            "unknown setting 'rot'; have channel, options.KEY, out",
        ),
        (["prepare", "folder", "root=.", "channel=left"], "channel is 'left'; have mean, first"),
        (["prepare", "folder", "root=.", "strict=no"], "strict is 'no'; have true, false"),
        (["prepare", "folder", "root=.", "strict="], "'strict=' is empty; give a value"),
        (["prepare", "folder", "root=.", "options.x=1"], "corpus 'folder': unknown key 'x'; have"),
        (["audit", "nowhere.jsonl"], ""),
        (["audit", "x.jsonl", "unknown_speakers=ok"], "unknown_speakers is 'ok'; have refuse, acc"),
        (["audit", "x.jsonl", "label="], "'label=' is empty; give a value"),
        (["audit", "emodbb"], "no corpus called 'emodbb'; have"),
        (["eval", "nowhere.ckpt"], "no checkpoint at nowhere.ckpt; give a .ckpt file"),
        (["eval", "nowhere.ckpt", "corpora=x"], "unknown setting 'corpora'; have"),
        (["adapt", "nowhere.ckpt"], "no speech to adapt to; add data=CORPUS, or data=FILE.jsonl"),
        (["adapt", "nowhere.ckpt", "data=x", "shot=4"], "unknown setting 'shot'; have"),
        (["probe", "nowhere.ckpt", "data=x", "fold="], "'nowhere.ckpt' is neither a trained model"),
        (["train", "recipe=emodb"], "'recipe=emodb' stands where the name of a recipe belongs"),
        (["compare", "head=[selm]"], "'head=[selm]' stands where the name of a suite belongs"),
        (["compare", "smok"], "no suite config called 'smok'; have"),
        (["compare", "smoke", "sed=[1]", "--dry-run"], "unknown key 'sed'; have"),
        (["compare", "smoke", "--limit", "0"], "--limit is 0; give minutes above 0"),
        (
            ["tensorboard", "smoke"],
            "no folder runs/smoke or smoke; run `serzoo compare smoke` first",
        ),
        (["report", "smoke"], "no comparison in runs/smoke; run `serzoo compare smoke` first"),
    ],
)
def test_errors_are_one_line_and_end_with_2(
    arguments: list[str], message: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"serzoo {arguments[0]}: {message}")
    assert "Traceback" not in out + err
    assert err.count("\n") == 1


def test_an_interrupt_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.app["list"], "default_command", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli.app["list"], "default_command", broken)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


# Prepare, audit.


def test_prepare_writes_a_manifest_and_says_so(
    corpus: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "folder", f"root={corpus}", r"options.speaker=(s\d)\.wav"]
    assert main([*arguments, "out=2024"]) == 0
    out = capsys.readouterr().out
    assert "folder: 15 utterances of 5 speakers" in out
    assert "manifest: 2024" in out
    rows = [json.loads(line) for line in (elsewhere / "2024").read_text().splitlines()]
    assert {(r["label"], r["speaker"]) for r in rows} == {(a, s) for a in LABELS for s in SPEAKERS}


def test_prepare_ends_with_1_where_it_found_fault(
    corpus: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # without the option, every file is taken for a speaker of its own, which is a warning
    assert main(["prepare", "folder", f"root={corpus}"]) == 1
    assert "manifest: folder.jsonl" in capsys.readouterr().out


def test_audit_of_a_manifest(
    corpus: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"root={corpus}", r"options.speaker=(s\d)\.wav", "out=m.jsonl"]
    assert main(["prepare", "folder", *arguments]) == 0
    capsys.readouterr()
    assert main(["audit", "m.jsonl", "protocol=kfold"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in lines if line.startswith("fold ")] == [
        f"fold {k}:" for k in range(5)
    ]
    assert lines[-1] == "5 folds, 0 with leakage"


def test_prepare_says_all_that_it_found_and_why_it_ends_with_1(
    corpus: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpus, "c")
    Path("c/sad/s1.wav").write_bytes(b"")
    Path("c/loose.wav").write_bytes(b"")
    Path("c/sad/._s2.wav").write_bytes(b"")
    Path("c/happy").rename("c/glum")
    arguments = ["prepare", "folder", "root=c", "out=m.jsonl", r"options.speaker=(s\d)\.wav"]
    for _ in range(2):  # a second call says no less
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 2
        lines = err.splitlines()
        assert len(lines) == len(set(lines))
        for start, words in (
            ("warning: ", "left out 1 files without a label's folder (first: loose.wav)"),
            ("warning: ", "'glum' (5)"),
            ("warning: ", "refused 1, empty (first: c/sad/s1.wav has 0 bytes"),
            ("note: ", "m.refused.jsonl"),
            ("note: ", "sad/._s2.wav"),
            ("serzoo prepare: ", "exit code 1, because of 2 warnings and 1 refusal"),
        ):
            assert [line.startswith(start) for line in lines if words in line] == [True], words


def test_facts_that_are_no_fault_leave_the_exit_code_alone(
    corpus: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpus, "c")
    Path("c/sad/._s2.wav").write_bytes(b"")
    assert main(["prepare", "folder", "root=c", r"options.speaker=(s\d)\.wav"]) == 0
    assert "note: " in capsys.readouterr().err


def test_audit_tells_what_prepare_found(
    corpus: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpus, "c")
    Path("c/sad/x.m4a").write_bytes(b"x")
    assert main(["audit", "folder", "protocol=kfold", "root=c", r"options.speaker=(s\d)\."]) == 0
    out, err = capsys.readouterr()
    assert "m4a" in err
    assert "m4a" not in out


def test_audit_ends_with_1_where_audio_leaks(
    write_wave: Callable[..., Path], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for speaker in SPEAKERS:  # every speaker says the very same
        write_wave(elsewhere / "c" / "angry" / f"{speaker}.wav", seconds=0.2)
    arguments = ["root=c", r"options.speaker=(s\d)\.wav"]
    assert main(["audit", "folder", "protocol=kfold", *arguments]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "5 folds, 5 with leakage"


# Settings and options in any order.


def test_settings_may_follow_options(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def compare(*words: object, **options: object) -> dict[str, int]:
        seen.append((words, options))
        return {"failed": 0}

    monkeypatch.setattr("serzoo.zoo.compare.compare.compare", compare)
    for order in (
        ["smoke", "seed=[2]", "optim.epochs=1", "--dry-run", "--out", "x"],
        ["smoke", "--dry-run", "--out", "x", "seed=[2]", "optim.epochs=1"],
        ["--dry-run", "smoke", "seed=[2]", "--out", "x", "optim.epochs=1"],
    ):
        assert main(["compare", *order]) == 0
    assert seen[0] == seen[1] == seen[2]
    options = {"out": "x", "workers": None, "limit": None, "dry_run": True}
    assert seen[0] == (("smoke", ("seed=[2]", "optim.epochs=1")), options)


# Wrong use.


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        ("cache list ce55", ("ce55",)),
        ("lock --file nowhere.lock", ("nowhere.lock", "serzoo lock MODEL")),
        ("tensorboard {run} --port -1", ("--port", 0)),
        ("tensorboard {run} --port 65536", ("--port", 65535)),
        ("replicate gen_ser_gender --records nowhere", ("nowhere", "is not there")),
        ("replicate gen_ser_gender --records {file}", ("is a file",)),
        ("show {file}", ("is a file", "run's folder")),
        ("audit {file} root=nowhere", ("nowhere", "root")),
        ("audit synthetic label=gender", ("label=gender", "taxonomy=NAME")),
        (
            "eval {run} condition=white:10dB noise=nowhere",
            ("noise=nowhere", "noise:10dB"),
        ),
        ("eval {run} rir=nowhere", ("rir=nowhere", "clean", "condition=reverb")),
        ("eval {run} part=test part=all", ("part", "twice", "test", "all")),
        ("prepare synthetic processes=two", ("processes", "'two'", "whole number")),
        ("predict {run} a.wav --json --format csv", ("--json", "--format csv")),
        ("label synthetic_talk taxonomy=big4 out=labels scorer=lexikon", ("'lexikon'", "lexicon")),
        ("label synthetic_talk taxonomy=big4 out={file} scorer=lexicon", ("is a file", "path")),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    typed: str, facts: tuple[object, ...], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "a.jsonl").write_text("")
    before = set(elsewhere.rglob("*"))
    words = typed.format(run="nowhere", file="a.jsonl").split()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert tells(err, *facts)
    assert err.count("\n") == 1
    assert set(elsewhere.rglob("*")) == before


def test_a_claim_about_no_suite_is_refused(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "title: T\npaper: P\nsays: S\nrefuted_by: R\nsuite: reel\nhead: selm\n"
        "against: classification\ndirection: better\nsize: 0.02\n"
    )
    (elsewhere / "claim.yaml").write_text(text)
    assert main(["replicate", "claim.yaml"]) == 2
    assert tells(capsys.readouterr().err, "'reel'", "real", "suite")


@pytest.mark.parametrize(
    ("before", "setting", "code"),
    [
        ("", ">&-", 0),  # no place for the output
        ("PYTHONIOENCODING=ascii", "", 0),  # the table holds a dash that ASCII lacks
        ("mkdir gone; cd gone; rmdir ../gone;", "", 2),
    ],
)
def test_a_terminal_that_lacks_something_gets_no_traceback(
    before: str, setting: str, code: int, tmp_path: Path
) -> None:
    program = "import sys; from serzoo.zoo.cli import main; sys.exit(main())"
    command = f"{before} {sys.executable} -c '{program}' list heads {setting}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("working directory" in done.stderr) == (code == 2)


def test_ctrl_c_in_a_training_is_told_as_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning's Trainer does

    assert terminal.exit_code(work, "serzoo train", 0) == 130
    assert capsys.readouterr().err == "interrupted\n"
