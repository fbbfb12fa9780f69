"""Composition of runs: groups, overrides, refusals, and the fingerprint."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from facts import says, tells
from serzoo.zoo.compare import axes
from serzoo.zoo.core import shipped
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.registry import check_options
from serzoo.zoo.core.shipped import read_yaml
from serzoo.zoo.run import config
from serzoo.zoo.run.schema import DataConfig, OptimConfig, RunConfig, TrainerConfig
from serzoo.zoo.run.words import corpora_of, parse, read_settings, words

RECIPE = """
corpus: synthetic
groups: {encoder: logmel, head: classification}
optim: {epochs: 12}
"""


def load(*overrides: str) -> RunConfig:
    return config.compose(config.read_mapping(RECIPE, "recipe"), parse(overrides))


def write(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


# Composition.


def test_a_recipe_picks_groups_and_a_corpus_brings_protocol_and_taxonomy() -> None:
    cfg = config.load("ravdess")
    assert cfg.corpus == ["ravdess"]
    # every knob is written out, as the constructor has it
    assert cfg.encoder["type"] == "logmel"
    assert {k: cfg.encoder[k] for k in ("bands", "dim", "widths")} == {
        "bands": 64,
        "dim": 192,
        "widths": [32, 64, 128, 192],
    }
    assert cfg.head["type"] == "classification"
    assert cfg.protocol == "ravdess8-6fold@1"
    assert cfg.taxonomy == "ravdess8"


def test_a_recipe_tweaks_what_its_encoder_brings() -> None:
    scratch = config.read_group("optim", "scratch")
    optim = load().optim
    assert (optim.epochs, optim.lr, optim.mixup) == (12, scratch["lr"], scratch["mixup"])


def test_a_group_on_the_command_line_drops_the_recipe_s_tweaks_for_it() -> None:
    assert load("optim=frozen").optim.epochs == config.read_group("optim", "frozen")["epochs"]
    assert load("head=prototype").head == config.read_group("head", "prototype")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """configs/head with two more files of one type: ``wide`` and ``narrow``."""
    folder = tmp_path / "head"
    folder_of_heads = Path(str(shipped.files("serzoo.configs.head")))
    shutil.copytree(folder_of_heads, folder)
    write(folder / "wide.yaml", "type: classification\nhidden: 99\n")
    write(folder / "narrow.yaml", "type: classification\nhidden: 3\n")
    real = shipped.files
    monkeypatch.setattr(
        shipped, "files", lambda name: folder if name == "serzoo.configs.head" else real(name)
    )
    return folder


def test_a_head_is_called_after_its_configuration(files: Path) -> None:
    cfg = load("head=wide", "head.dropout=0.3")
    assert (cfg.called, cfg.head_name, cfg.head["type"]) == ("wide", "wide", "classification")
    assert (cfg.head["hidden"], cfg.head["dropout"]) == (99, 0.3)
    assert "wide" not in cfg.head.values()
    assert load().called == "classification"  # of the recipe
    assert load("head=wide", "head_name=mine").called == "mine"
    with pytest.raises(ConfigError, match=says("'wode'", "classification", "'wide'")):
        load("head=wode")


def test_a_name_is_a_label_and_not_part_of_what_decides_the_numbers(files: Path) -> None:
    assert load("head=wide").fingerprint == load("head.hidden=99").fingerprint
    assert load("head=wide").fingerprint != load("head=narrow").fingerprint


def test_another_type_is_not_called_after_the_file(files: Path) -> None:
    base = {"corpus": "synthetic", "groups": {"encoder": "logmel", "head": "wide"}}
    cfg = config.compose(base, [("head", {"type": "selm"})])
    assert cfg.called == "selm"


def test_a_configuration_of_before_heads_had_names_is_called_after_its_type() -> None:
    values = load("head=selm").to_dict()
    del values["head_name"]
    old = RunConfig.from_dict(values)
    assert old.called == "selm"
    assert old.fingerprint == load("head=selm").fingerprint


@pytest.mark.parametrize(
    ("encoder", "fingerprint"), [("serzoo-small", "43e1f6b619"), ("whisper-base", "a07879f99d")]
)
def test_a_run_keeps_its_fingerprint(encoder: str, fingerprint: str) -> None:
    """A new option belongs into ``zoo/core/earlier.py``, or finished runs are not found again."""
    assert config.load("emodb", [f"encoder={encoder}"]).fingerprint == fingerprint


@pytest.mark.parametrize("encoder", ["serzoo-small", "whisper-base"])
def test_an_encoder_s_later_option_leaves_the_runs_of_before_as_they_were(encoder: str) -> None:
    today = load(f"encoder={encoder}")
    values = today.to_dict()
    assert values["encoder"].pop("join") == "mix"
    assert RunConfig.from_dict(values).fingerprint == today.fingerprint
    assert "join" not in today.identity["encoder"]
    other = load(f"encoder={encoder}", "encoder.join=concat")
    assert other.identity["encoder"]["join"] == "concat"
    assert other.fingerprint != today.fingerprint


@pytest.mark.parametrize(("calibrated", "weight"), [(False, 1.0), (True, 0.0)])
def test_selm_s_calibrated_of_before_is_a_weight_and_the_same_run(
    calibrated: bool, weight: float
) -> None:
    today = load("head=selm", f"head.lm_weight={weight}")
    values = today.to_dict()
    del values["head"]["lm_weight"]
    old = RunConfig.from_dict({**values, "head": {**values["head"], "calibrated": calibrated}})
    assert old.head["lm_weight"] == weight
    assert old.fingerprint == today.fingerprint
    assert today.identity["head"]["calibrated"] is calibrated  # as the first records have it
    other = load("head=selm", "head.lm_weight=0.5")
    assert other.identity["head"]["lm_weight"] == 0.5
    assert other.fingerprint != today.fingerprint


def test_an_encoder_on_the_command_line_brings_its_own_optim() -> None:
    frozen = config.read_group("optim", "frozen")
    cfg = load("encoder=hf")
    assert (cfg.optim.lr, cfg.optim.epochs) == (frozen["lr"], frozen["epochs"])
    assert "optim" not in cfg.encoder


def test_the_order_of_groups_does_not_matter() -> None:
    a, b = load("encoder=hf", "optim=scratch"), load("optim=scratch", "encoder=hf")
    assert a == b
    assert a.optim.lr == config.read_group("optim", "scratch")["lr"]


def test_keys_are_set_after_groups_are_replaced() -> None:
    cfg = load("head.prefix=3", "head=selm", "optim.lr=1e-2", "encoder=hf")
    assert (cfg.head["type"], cfg.head["prefix"], cfg.optim.lr) == ("selm", 3, 0.01)


def test_the_last_of_equal_keys_holds() -> None:
    assert load("head.hidden=1", "head.hidden=2").head["hidden"] == 2


def test_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.yaml",
        "corpus: emodb\ngroups: {encoder: logmel, head: gen_ser}\n"
        "head: {steps: 4}\nseed: 7\nfold: 2\n",
    )
    cfg = config.load(file, ["seed=8"])
    assert (cfg.head["type"], cfg.head["steps"], cfg.seed, cfg.fold) == ("gen_ser", 4, 8, 2)
    assert config.load(file, ["head=selm"]).head == config.read_group("head", "selm")


def test_a_manifest_needs_no_corpus() -> None:
    cfg = load("corpus=[]", "data.manifest=x.jsonl")
    assert (cfg.corpus, cfg.protocol, cfg.taxonomy) == ([], "kfold", "auto")
    assert config.build_taxonomy(cfg) is None


def test_several_corpora_leave_one_out() -> None:
    cfg = load("corpus=[ravdess,emodb]", "taxonomy=big4")
    assert (cfg.protocol, cfg.taxonomy) == ("loco", "big4")
    taxonomy = config.build_taxonomy(cfg)
    assert taxonomy is not None
    assert taxonomy.name == "big4"


def test_plain_containers_and_back() -> None:
    cfg = load("encoder=hf", "encoder.layers=[4]", "data.options.speaker=0010")
    values = cfg.to_dict()
    assert type(values["encoder"]) is dict
    assert type(values["encoder"]["layers"]) is list
    assert RunConfig.from_dict(values) == cfg


# Strict YAML.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0010", "0010"),
        ("10", 10),
        ("no", "no"),
        ("true", True),
        ("null", None),
        ("", None),
        ("1e-3", 0.001),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("[a, 01]", ["a", "01"]),
        ("a=b", "a=b"),
    ],
)
def test_values_are_read_strictly(text: str, value: object) -> None:
    assert parse([f"n={text}"]) == [("n", value)]


def test_a_code_with_a_leading_zero_reaches_the_reader_as_it_is_written() -> None:
    assert load("data.options.n=0010").data.options == {"n": "0010"}


# Refusals.


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hed=selm", "'hed'.* corpus, data, .*'head'"),
        ("optim.lrr=1", "'optim.lrr'.* accumulate, clip, .*'lr'"),
        ("trainer.device=1", "'trainer.device'.*'devices'"),
        ("data.batchsize=1", "'data.batchsize'.*'batch_size'"),
        ("head.hidde=1", "head 'classification': .*'hidde'.*'hidden'"),
        ("encoder.bnds=1", "encoder 'logmel': .*'bnds'.*'bands'"),
        ("head=selmm", "head .*'selmm'.* classification, .*'selm'"),
        ("encoder=logmell", "encoder .*'logmell'.*'logmel'"),
        ("optim=froze", "optim .*'froze'.* finetune, .*'frozen'"),
        ("corpus=ravdes", "corpus .*'ravdes'.*'ravdess'"),
        ("taxonomy=big5", "taxonomy .*'big5'.*'big4'"),
        ("protocol=kfld", "protocol .*'kfld'.*'kfold'"),
        ("data=5", "'data' .*data.root, "),
        ("head=5", "^head: .*int"),
        ("head.type=[selm]", "head .*type.* classification, "),
        ("head.hidden.x=1", "'head.hidden.x' .*'hidden'.* value"),
        ("seed=abc", "^seed: .*'abc'"),
        ("optim.lr=fast", "^optim.lr: .*'fast'"),
        ("trainer.devices=two", "^trainer.devices: .*'two'"),
        ("seed=1.0", "^seed: 1.0 .*whole number"),
        ("seed=-1", "^seed=-1 .*0"),
        ("seed=4294967296", "^seed=4294967296 .*4294967296"),
        ("optim.lr=.inf", "^optim.lr is inf.*finite"),
        ("head.dropout=2", "head 'classification': dropout=2.*less than 1"),
        ("head.hidden=-1", "hidden=-1.*0 or more"),
        ("head.focal_gamma=.nan", "focal_gamma=nan.*finite"),
        ("seed='1'", "^seed: '1' .*whole number"),
        ("trainer.devices=true", "^trainer.devices: True .*whole number"),
        ("optim.lr=true", "^optim.lr: True .*number"),
        ("optim.clip=.nan", "^optim.clip=nan .*0"),
        ("data.balance=1", "^data.balance: 1 .*true or false"),
        ("head.hidden=[", r"'head.hidden=\[': .*line 1, column 2"),
        ("selm", "'selm' .*key=value.*optim.lr=1e-3"),
        ("=3", "'=3' .*key=value"),
        ("corpus=[]", "corpus=NAME.* data.manifest=FILE"),
        ("corpus=[emodb,emodb]", "twice.* emodb, emodb"),
        ("corpus=[emodb,ravdess]", r"\(emodb, ravdess\) .*taxonomy"),
        ("data.features=off", "data.features .*'off'.* auto, live"),
    ],
)
def test_refusals_say_what_was_found_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(override)


def test_everything_wrong_with_a_constructor_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load("head=selm", "head.prefixx=3", "head.lm_width=big", "head.dropout=x")
    message = str(caught.value)
    assert message.startswith("head 'selm': ")
    assert tells(message, "'prefixx'", "'prefix'", "lm_width='big'", "int", "dropout='x'", "float")


def test_all_numbers_out_of_range_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load("fold=-1", "optim.lr=.nan", "optim.ema=2", "data.batch_size=0", "optim.epochs=1")
    wrong = ["fold=-1", "data.batch_size=0", "optim.lr=nan", "optim.ema=2"]
    message = str(caught.value)
    assert tells(message, *wrong)
    assert message.count(";") == len(wrong) - 1
    assert "epochs" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", r"r\.yaml .*list.*\bkey: value"),
        ("corpus: [\n", r"r\.yaml: .*line 2"),
        ("corpus: emodb\n", "encoder=NAME.* data2vec-audio-base"),
        ("groups: logmel\n", r"groups .*'logmel'.*groups: \{encoder: NAME, head: NAME\}"),
        ("group: {head: selm, encoder: logmel}\n", "'group'.*'groups'"),
        ("groups: {haed: selm}\n", "'haed'.* encoder, .*'head'"),
        ("groups: {head: selm, encoder: logmel}\noptin: {lr: 1}\n", "'optin'.* corpus, .*'optim'"),
    ],
)
def test_a_recipe_file_s_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path / "r.yaml", text))


def test_no_such_recipe() -> None:
    with pytest.raises(ConfigError, match=says("'ravdes'", "big4_transfer", "'ravdess'")):
        config.load("ravdes")
    with pytest.raises(ConfigError, match=says("nowhere.yaml", "big4_transfer")):
        config.load("nowhere.yaml")


@pytest.mark.parametrize(
    ("tuning", "rate"), [("frozen", 1e-3), ("lora", 2e-4), ("last_k", 2e-5), ("full", 2e-5)]
)
def test_tuning_an_encoder_brings_the_optimisation_that_suits_it(tuning: str, rate: float) -> None:
    assert load("encoder=hf", f"encoder.tuning={tuning}").optim.lr == rate
    # unless one is asked for
    assert load("encoder=hf", f"encoder.tuning={tuning}", "optim=scratch").optim.ema == 0.99
    assert load("encoder=hf", f"encoder.tuning={tuning}", "optim.lr=0.5").optim.lr == 0.5


@pytest.mark.parametrize(
    ("overrides", "pooling"),
    [
        (["encoder=whisper-base"], "mean"),
        (["encoder=whisper-base", "head=gen_ser_ce"], "mean"),  # as gen_ser, its reference
        (["encoder=whisper-base", "head=gen_ser"], "mean"),
        (["encoder=whisper-base", "head=linear_svm", "head.pooling=stats"], "stats"),
        (["encoder=whisper-base", "head.pooling=attentive"], "attentive"),
        (["encoder=whisper-base", "encoder.tuning=lora"], "attentive"),
        ([], "attentive"),  # the log-mel encoder learns
    ],
)
def test_a_frozen_published_encoder_brings_the_pooling_that_suits_it(
    overrides: list[str], pooling: str
) -> None:
    assert config.load("ravdess", overrides).head["pooling"] == pooling


def test_so_does_an_encoder_of_ones_own_that_gives_one_vector(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from serzoo.zoo.encoders.functionals import FunctionalsEncoder\n"
        "class Loudness(FunctionalsEncoder):\n    pass\n"
    )
    own = f"encoder={tmp_path}/own.py:Loudness"
    assert config.load("ravdess", [own]).head["pooling"] == "mean"
    a, b = (config.load("ravdess", [own, f"data.standardise={how}"]) for how in ("none", "auto"))
    assert a.fingerprint != b.fingerprint  # it never learns, so its frames are standardised


# The fingerprint.


@pytest.mark.parametrize(
    "override",
    [
        "data.root=/elsewhere",
        "data.manifest=m.jsonl",
        "data.workers=3",
        "data.features=live",
        "trainer.out=elsewhere",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.num_nodes=2",
        "trainer.threads=1",
        "trainer.progress=false",
        "trainer.board_audio=5",
        "head=classification",
    ],
)
def test_where_a_run_is_made_does_not_name_it(override: str) -> None:
    assert load(override).fingerprint == load().fingerprint


NOT_A_FRACTION = ("epochs", "min_steps", "accumulate", "schedule", "select", "refit", "metric")


@pytest.mark.parametrize(
    "override",
    [
        "seed=2",
        "fold=1",
        "taxonomy=big4",
        "protocol=kfold",
        "head=selm",
        "head.hidden=64",
        "encoder.dropout=0.45",
        "data.label=gender",
        "data.options.seed=3",
        "data.batch_size=16",
        "data.batch_seconds=80",
        "data.max_seconds=10",
        "data.balance=false",
        "data.train_share=0.5",
        "trainer.precision=bf16-mixed",
        *(f"optim.{f.name}=0.5" for f in fields(OptimConfig) if f.name not in NOT_A_FRACTION),
        "optim.epochs=3",
        "optim.min_steps=3",
        "optim.accumulate=2",
        "optim.schedule=linear",
        "optim.select=last",
        "optim.refit=true",
        "optim.metric=wa",
    ],
)
def test_what_decides_the_numbers_names_the_run(override: str) -> None:
    assert load(override).fingerprint != load().fingerprint


def test_the_recipe_s_name_is_not_part_of_the_fingerprint(tmp_path: Path) -> None:
    first, second = (write(tmp_path / f"{name}.yaml", RECIPE) for name in ("first", "second"))
    assert config.load(first).fingerprint == config.load(second).fingerprint == load().fingerprint
    assert re.fullmatch("[0-9a-f]{10}", load().fingerprint)


def test_every_key_is_either_part_of_the_identity_or_left_out_on_purpose() -> None:
    identity = load().identity
    left_out = {f.name for f in fields(RunConfig)} - set(identity)
    assert left_out == {"recipe", "head_name", "init", "init_head", "utterance", "own"}
    later = ("init=runs/a", "init_head=true", "utterance=functionals")
    assert set(load(*later).identity) - set(identity) == {"init", "init_head", "utterance"}
    # what was done before there was a choice is not named
    chosen = ("data.train_share=0.5", "data.weak=soft", "data.weak_weight=false")
    chosen += ("data.targets=sampled",)
    chosen += ("data.weak_shuffle=0", "data.unknown_speakers=accept", "encoder=wav2vec2-base")
    chosen += ("data.normalise=enrol:4", "data.corrupted_copies=3")
    data = load(*chosen).identity["data"]
    of_data = {f.name for f in fields(DataConfig)} - set(data)
    later_of_data = {"train_share", "weak", "weak_weight", "weak_shuffle", "unknown_speakers"}
    later_of_data |= {"targets", "standardise", "normalise"}  # standardise: of a frozen encoder
    later_of_data |= {"corrupted_copies"}
    assert set(data) - set(identity["data"]) == later_of_data
    assert of_data == {"root", "manifest", "workers", "features"}
    of_trainer = {f.name for f in fields(TrainerConfig)} - set(identity["trainer"])
    assert of_trainer == {f.name for f in fields(TrainerConfig)} - {"precision"}
    chosen = ("optim.min_steps=100", "optim.select=last", "optim.refit=true", "optim.metric=wa")
    optim = load(*chosen).identity["optim"]
    assert {f.name for f in fields(OptimConfig)} == set(optim)
    assert set(optim) - set(identity["optim"]) == {"min_steps", "select", "refit", "metric"}


def test_a_default_written_out_is_the_same_run_and_so_is_zero() -> None:
    plain = load("head=classification")
    assert load("head=classification", "head.hidden=0").fingerprint == plain.fingerprint
    assert load("head=classification", "head.label_smoothing=0").fingerprint == plain.fingerprint
    assert load("head=classification", "head.hidden=8").fingerprint != plain.fingerprint


def test_settings_of_a_verb_stay_as_typed_unless_something_else_is_meant() -> None:
    words = ["root=007", "data=1e3", "fold=2", "strict=true", "options.part=5", "out=a=b"]
    types = {"root": str, "data": str | list[str], "fold": int, "strict": bool, "out": str | None}
    assert read_settings(words, types) == {
        "root": "007", "data": "1e3", "fold": 2, "strict": True, "out": "a=b",
        "options": {"part": 5},
    }  # fmt: skip
    # the reader's keywords say what its options are
    assert read_settings(["options.label=0"], types, ["csv"]) == {"options": {"label": "0"}}
    with pytest.raises(ConfigError, match=says("'rot'", "options.KEY", "'root'")):
        read_settings(["rot=."], types)
    with pytest.raises(ConfigError, match=says("fold", "'first'", "whole number")):
        read_settings(["fold=first"], types)
    with pytest.raises(ConfigError, match=says("fold", "twice", 1, 2)):
        read_settings(["fold=1", "fold=2"], types)


# Typed values.


NAMES = [
    "my data #1", "2024", "007", "1_000", "1e3", "a: b", "[x]", "{x}", "*star", "&amp", "@at",
    "!bang", "%pct", "no", "true", "null", "~", "o'clock", "x,y", "comma, space", "tab\ttab",
    "ünï 音", " lead", "trail ", "a=b", "-dash", "2024-05-01", "0x10", "12:30:45", "${HOME}",
    "???", "a\\b", "'half", '"a" and "b"', "run #3.jsonl", "\U0001f600", "0.10", ".5", "+1", "-",
    "[", "{0: angry}",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_or_a_column_is_what_was_typed(name: str) -> None:
    typed = [f"data.root={name}", f"trainer.out={name}", f"data.options.label={name}"]
    typed.append("data.options.labels=['x', 2024, null]")
    cfg = load_typed("corpus=csv", "taxonomy=big4", *typed)
    assert (cfg.data.root, cfg.trainer.out, cfg.data.options["label"]) == (name, name, name)
    assert cfg.data.options["labels"] == ["x", "2024", "null"]
    assert RunConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg  # as a record has it
    types = {"root": str | None, "out": str | None}
    typed = [f"root={name}", f"out={name}", f"options.speaker={name}"]
    assert read_settings(typed, types, ["csv"]) == {
        "root": name,
        "out": name,
        "options": {"speaker": name},
    }
    # what a suite writes for a cell is read back
    assert parse([axes.setting("root", name)], types) == [("root", name)]


def test_names_of_data_that_are_no_yaml_are_names() -> None:
    assert corpora_of(["data=/a: b.jsonl"], "data") == ["/a: b.jsonl"]
    assert corpora_of(["x=1", "data=[emodb, csv]"], "data") == ["emodb", "csv"]
    assert corpora_of(["x=1"], "data") == []
    with pytest.raises(ConfigError, match=r"no corpus called '\[x'"):
        load_typed("corpus=[x")


def load_typed(*overrides: str) -> RunConfig:
    return config.compose(config.read_mapping(RECIPE, "recipe"), words(overrides))


@pytest.mark.parametrize("name", NAMES)
def test_quotes_around_all_of_a_value_are_taken_away(name: str) -> None:
    assert load_typed(f"data.root={json.dumps(name, ensure_ascii=False)}").data.root == name
    single = name.replace("'", "''")
    assert load_typed(f"data.root='{single}'").data.root == name


def test_nothing_and_null_stand_for_what_is_not_set() -> None:
    cfg = load_typed("data.root=", "taxonomy=null", "init=~", "data.manifest=null", "protocol=")
    assert (cfg.data.root, cfg.init, cfg.data.manifest) == (None, None, None)
    assert cfg.taxonomy == load().taxonomy
    assert cfg.protocol == load().protocol
    with pytest.raises(ConfigError, match=r"trainer\.out"):
        load_typed("trainer.out=")


def test_what_is_no_text_is_read_as_yaml() -> None:
    cfg = load_typed(
        "optim.lr=1e-3", "data.balance=false", "trainer.threads=null", "corpus=[ravdess,emodb]",
        "taxonomy=big4", "head=selm", "head.prefix=3", "encoder.widths=[8, 8, 8, 8]",
    )  # fmt: skip
    assert (cfg.optim.lr, cfg.data.balance, cfg.trainer.threads) == (0.001, False, None)
    assert (cfg.corpus, cfg.head["prefix"], cfg.encoder["widths"]) == (
        ["ravdess", "emodb"],
        3,
        [8, 8, 8, 8],
    )
    with pytest.raises(ConfigError, match=r"optim\.lr=\[1"):
        load_typed("optim.lr=[1")
    with pytest.raises(ConfigError, match="seed"):
        load_typed("seed=soon")


def test_a_number_in_a_recipe_is_the_text_that_it_is_meant_for() -> None:
    text = (
        "corpus: csv\ngroups: {encoder: logmel, head: classification}\ntaxonomy: big4\n"
        "data: {root: 2024, options: {speaker: 007, audio: 0, rename: {0: angry, 1: 2}}}\n"
    )
    cfg = config.compose(config.read_mapping(text, "r"), [])
    assert cfg.data.root == "2024"
    assert cfg.data.options == {"speaker": "007", "audio": "0", "rename": {"0": "angry", "1": "2"}}


@pytest.mark.parametrize("value", ["1e3", "0.10", "true"])
def test_what_a_recipe_cannot_tell_is_asked_for_in_quotes(value: str) -> None:
    text = "corpus: csv\ngroups: {encoder: logmel, head: classification}\n"
    with pytest.raises(ConfigError, match=r"data\.root.* quotes"):
        config.compose(config.read_mapping(text + f"data: {{root: {value}}}\n", "r"), [])
    with pytest.raises(ConfigError, match=r"audio=.* quotes"):
        check_options("corpora", "csv", read_yaml(f"audio: {value}"))
    with pytest.raises(ConfigError, match=r"rename=.* quotes"):
        check_options("corpora", "csv", read_yaml(f"rename: {{a: {value}}}"))


def test_a_recipe_that_names_a_group_as_a_key_is_told_how() -> None:
    with pytest.raises(ConfigError, match=r"encoder is 'hf'.*groups: \{encoder: NAME\}"):
        config.compose(config.read_mapping(RECIPE + "encoder: hf\n", "r"), [])
