"""Every precision, accelerator, strategy and number of devices: trained with, or refused before."""

from __future__ import annotations

import time
from typing import Any, get_args

import psutil
import pytest
import torch
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run import config, devices
from serzoo.zoo.run.schema import ACCELERATORS, ALIASES, PRECISIONS, STRATEGIES, RunConfig
from serzoo.zoo.run.train import train

pytestmark = pytest.mark.usefixtures("no_group_left")


def literals(annotation: Any) -> list[str]:
    inner = [str(x) for a in get_args(annotation) for x in (literals(a) or [a])]
    return sorted(set(inner))


LIGHTNINGS = literals(_PRECISION_INPUT)
ODD = ["fp16", "float16", "half", "BF16-mixed", "bf16_mixed", "float32", "8", "null"]
HELD = [p for p in LIGHTNINGS if p.endswith("-true") and p != "32-true"]
HERE = {"cpu": ("32-true", "32", "bf16-mixed", "bf16")}
WANTED = [*LIGHTNINGS, *ODD]


def one(word: str, *more: str) -> RunConfig:
    return config.load("synthetic", [word, *more])


def on(
    monkeypatch: pytest.MonkeyPatch, kind: str, number: int = 1, *, bfloat16: bool = True
) -> None:
    """A machine with that many devices of a kind."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
    monkeypatch.setattr(devices, "cores", lambda: number)


# Precisions, on any machine.


def test_how_many_values_are_swept() -> None:
    """Lightning knows more from time to time: then something is to be decided here."""
    assert (len(LIGHTNINGS), len(HELD), len(WANTED)) == (12, 3, 20)
    assert set(PRECISIONS) | set(ALIASES) < set(LIGHTNINGS)
    assert (len(PRECISIONS), len(ALIASES), len(ACCELERATORS), len(STRATEGIES)) == (3, 3, 5, 3)


@pytest.mark.parametrize("name", WANTED)
def test_a_precision_is_written_out_or_refused_with_those_there_are(name: str) -> None:
    if name in PRECISIONS or name in ALIASES:
        assert one(f"trainer.precision={name}").trainer.precision == ALIASES.get(name, name)
        return
    with pytest.raises(ConfigError, match=r"trainer\.precision") as told:
        one(f"trainer.precision={name}")
    if name != "null":
        assert ", ".join(PRECISIONS) in str(told.value)
    assert ("weights stay float32" in str(told.value)) == (name in HELD or name == "64")
    assert ("encoder.dtype=bfloat16" in str(told.value)) == (name in ("16-true", "bf16-true"))


def test_a_short_name_is_the_same_run() -> None:
    default = one("seed=1").fingerprint
    assert one("trainer.precision=32").fingerprint == default
    assert one("trainer.precision=32-true").fingerprint == default
    mixed = {one(f"trainer.precision={p}").fingerprint for p in ("bf16", "bf16-mixed")}
    assert len(mixed) == 1
    assert default not in mixed


@pytest.mark.parametrize(
    ("key", "names", "known", "number"),
    [
        ("accelerator", AcceleratorRegistry.available_accelerators(), ACCELERATORS, 1),
        ("accelerator", {"hpu", "GPU", "cuda:0"}, ACCELERATORS, 3),
        ("strategy", StrategyRegistry.available_strategies(), STRATEGIES, 22),
        ("strategy", {"dp", "DDP", "fsdp2"}, STRATEGIES, 3),
    ],
)
def test_other_accelerators_and_strategies_are_refused_by_name(
    key: str, names: set[str], known: tuple[str, ...], number: int
) -> None:
    others = sorted(set(names) - set(known))
    assert len(others) >= number
    for name in others:
        with pytest.raises(ConfigError, match=rf"trainer\.{key} is .*{', '.join(known)}"):
            one(f"trainer.{key}={name}")


@pytest.mark.parametrize("value", ["-1", "0", "auto", "'0,1'", "[0,1]", "1.5", "null", "two"])
@pytest.mark.parametrize("key", ["devices", "num_nodes"])
def test_devices_are_a_number_of_them(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.{key}"):
        one(f"trainer.{key}={value}")


def test_weights_that_are_shared_out_are_not_averaged() -> None:
    with pytest.raises(ConfigError, match=r"optim\.ema=0\.99 .*optim\.ema=0"):
        one("trainer.strategy=fsdp", "optim.ema=0.99")


# Machines.


@pytest.mark.parametrize(
    ("kind", "number", "words", "told"),
    [
        ("cpu", 2, ["trainer.devices=2"], None),
        ("cpu", 2, ["trainer.devices=3"], ["devices=3", "2 cores", "devices=2 at most"]),
        ("cpu", 2, ["trainer.devices=200"], ["200 processes", "2 cores"]),
        ("cpu", 1, ["trainer.devices=2"], ["1 core ", "trainer.devices=1"]),
        ("cpu", 2, ["trainer.num_nodes=9"], None),
        ("cpu", 2, ["trainer.precision=16-mixed"], ["CPU", "bf16-mixed or 32-true"]),
        ("cpu", 2, ["trainer.precision=16"], ["trainer.precision=16-mixed", "CPU"]),
        ("cpu", 2, ["trainer.accelerator=gpu"], ["accelerator=gpu", "finds none", "=auto"]),
        ("cpu", 2, ["trainer.accelerator=cuda"], ["accelerator=cuda", "finds none", "=auto"]),
        ("cpu", 2, ["trainer.accelerator=mps"], ["accelerator=mps", "finds none", "=auto"]),
        ("cuda", 4, ["trainer.devices=4", "trainer.precision=16-mixed"], None),
        ("cuda", 4, ["trainer.devices=5"], ["devices=5", "are 4 of kind cuda", "devices=4"]),
        ("cuda", 4, ["trainer.accelerator=mps"], ["accelerator=mps", "finds none"]),
        ("cuda", 4, ["trainer.accelerator=cpu", "trainer.precision=16-mixed"], ["on the CPU"]),
        ("mps", 1, ["trainer.accelerator=gpu", "trainer.precision=16-mixed"], None),
        ("mps", 1, ["trainer.devices=2"], ["is 1 of kind mps"]),
        ("mps", 1, ["trainer.strategy=fsdp", "optim.ema=0"], ["fsdp", "trainer.strategy=auto"]),
    ],
)
def test_what_a_machine_has_not_is_refused_before_data_is_opened(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    number: int,
    words: list[str],
    told: list[str] | None,
) -> None:
    on(monkeypatch, kind, number)
    cfg = one("data.root=/there/is/nothing", *words)  # composing asks nothing of the machine
    if told is None:
        devices.refuse_absent(cfg)
        return
    with pytest.raises(ConfigError) as caught:
        train(cfg)
    assert [text for text in told if text not in str(caught.value)] == []


def test_an_old_gpu_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "cuda", bfloat16=False)
    with pytest.raises(ConfigError, match=r"bf16-mixed.*Old GPU.*16-mixed or 32-true"):
        devices.refuse_absent(one("trainer.precision=bf16"))


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "cpu", 2)
    with pytest.raises(ConfigError, match=r"devices=7 .*precision=16-mixed"):
        devices.refuse_absent(one("trainer.devices=7", "trainer.precision=16"))


def test_processes_that_a_cluster_has_started_are_not_counted_on_one_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has cores of its own, and sees only these."""
    on(monkeypatch, "cpu", 1)
    for name in ("NTASKS", "NTASKS_PER_NODE"):
        monkeypatch.setenv(f"SLURM_{name}", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    devices.refuse_absent(one("trainer.devices=4"))


# This machine.


def test_how_many_precisions_this_processor_trains_in() -> None:
    here = {p for p in [*PRECISIONS, *ALIASES] if devices.can(torch.device("cpu"), p)}
    assert here == set(HERE["cpu"])


@pytest.mark.parametrize("precision", HERE["cpu"])
@pytest.mark.parametrize("clip", [0, 1])
def test_a_precision_trains(precision: str, clip: float, tiny_recipe: str, tmp_path: Any) -> None:
    cfg = config.load(
        tiny_recipe,
        ["optim.epochs=1", f"optim.clip={clip}", f"trainer.precision={precision}"],
    )
    entry = train(cfg, tmp_path)
    assert entry.status == "ok"
    assert entry.config["trainer"]["precision"] == ALIASES.get(precision, precision)
    assert 0 <= entry.metrics["uar"] <= 1


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_device_trains_under_every_strategy(
    accelerator: str, strategy: str, tiny_recipe: str, tmp_path: Any
) -> None:
    words = ["optim.epochs=1", "optim.ema=0", f"trainer.strategy={strategy}"]
    cfg = config.load(tiny_recipe, [*words, f"trainer.accelerator={accelerator}"])
    assert train(cfg, tmp_path).processes == 1


# Compare.


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trainer.precision=16-mixed"], "16-mixed .*CPU"),
        (["trainer.accelerator=cuda"], "accelerator=cuda"),
        (["trainer.devices=2"], r"devices=2.*set both to 1 .*--workers"),
        (["trainer.num_nodes=2"], r"num_nodes=2.*set both to 1"),
    ],
)
def test_a_suite_is_refused_before_its_first_cell(
    words: list[str], told: str, tiny_recipe: str, tmp_path: Any
) -> None:
    suite = tmp_path / "two.yaml"
    suite.write_text(
        f"title: two\naxes: {{recipe: [{tiny_recipe}], head: [classification], seed: [1, 2]}}\n"
    )
    # a dry run asks nothing of this machine: it may be for another
    compare(str(suite), words, out=str(tmp_path), dry_run=True)
    with pytest.raises(ConfigError, match=told):
        compare(str(suite), words, out=str(tmp_path))
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("word", ["trainer.precision=64", "trainer.accelerator=tpu"])
def test_a_suite_with_a_name_that_is_none_is_refused_when_it_is_read(
    word: str, tiny_recipe: str, tmp_path: Any
) -> None:
    suite = tmp_path / "one.yaml"
    suite.write_text(f"title: one\naxes: {{recipe: [{tiny_recipe}], head: [linear], seed: [1]}}\n")
    with pytest.raises(ConfigError, match=word.split("=")[0]):
        compare(str(suite), [word], out=str(tmp_path), dry_run=True)


def test_a_container_s_limit_bounds_the_memory_that_is_free(tmp_path, monkeypatch):
    free = devices.available(torch.device("cpu"))
    assert 0 < free < psutil.virtual_memory().total
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert devices.available(torch.device("cpu")) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.available(torch.device("cpu")) > 3000


def test_the_peak_is_seen_though_it_is_gone_at_the_end():
    with devices.PeakMemory(torch.device("cpu")) as peak:
        held = torch.ones(2**25)  # 128 MiB
        time.sleep(0.05)
        del held
    assert 100 * 2**20 < peak.growth < 400 * 2**20
