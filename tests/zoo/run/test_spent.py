"""Processor seconds and operations: what they count, and that counting changes nothing."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch
from serzoo.zoo.core.types import Batch, Targets
from serzoo.zoo.run import checkpoint
from serzoo.zoo.run.build import build_run
from serzoo.zoo.run.config import load
from serzoo.zoo.run.record import Record
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.spent import CountFlops, Tally, Used, flops, processor_seconds
from serzoo.zoo.run.train import train
from states import assert_same
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

# Processor seconds.


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_busy_loop_takes_what_the_process_s_own_clock_says() -> None:
    begin, clock = Used.now(), time.process_time()
    busy(0.3)
    time.sleep(0.2)  # waiting costs nothing
    took, end = time.process_time() - clock, Used.now()
    assert end.since(begin) == pytest.approx(took, abs=0.05)
    assert took == pytest.approx(0.3, abs=0.05)


CHILD = """
import subprocess, sys
leaf = "import time\\nwhile time.process_time() < 0.4: pass"
subprocess.run([sys.executable, "-c", leaf], check=True)
print("done", flush=True)
sys.stdin.read()
"""


def test_children_are_counted_while_they_run_and_after() -> None:
    begin = Used.now()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", CHILD], **pipes)
    assert process.stdout.readline() == b"done\n"  # its own child has ended, and it waits
    running = Used.now()
    assert 0.38 < running.since(begin) < 3
    assert running.since(begin, without=[process.pid]) < 0.3  # a rank counts itself
    process.communicate()
    ended = Used.now()
    assert process.pid not in ended.running
    assert ended.since(begin) >= running.since(begin) - 0.05
    assert ended.since(running) < 0.3  # nothing is counted twice


def test_parts_of_a_run_add_up_and_fitting_is_without_encoding() -> None:
    moments = [Used(float(s), {}) for s in (0, 1, 4, 9)]
    begin, fitting, fitted, end = moments
    parts = {"encode": (fitting, Used(3.0, {})), "fit": (fitting, fitted)}
    found = processor_seconds((begin, end), {**parts, "evaluate": (fitted, end)})
    assert found == {"encode": 2.0, "fit": 1.0, "evaluate": 5.0, "total": 9.0}


# Operations.


class Encoder:
    frame_seconds = 0.5


def stored(n: int = 3, frames: int = 4, width: int = 5) -> Batch:
    names, targets = [str(i) for i in range(n)], Targets(torch.ones(n, 1), torch.ones(n))
    mask = torch.arange(frames) < frames - 1  # the last one is padding
    hidden = torch.ones(n, 1, frames, width)
    return Batch(names, names, targets, hidden=hidden, mask=mask.expand(n, frames))


def counted(work, batch: Batch | None = None) -> Tally:
    tally = Tally()
    with tally.counting(batch or stored(), Encoder()):
        work()
    return tally


def test_a_linear_layer_has_two_operations_for_each_weight_and_row() -> None:
    layer, x = nn.Linear(5, 7, bias=False), torch.randn(3, 5)
    assert counted(lambda: layer(x)).flops == 2 * 3 * 5 * 7
    # backward: the gradient of the weights, and that of an input that needs one
    assert counted(lambda: layer(x).sum().backward()).flops == 2 * 2 * 3 * 5 * 7
    x.requires_grad_()
    assert counted(lambda: layer(x).sum().backward()).flops == 3 * 2 * 3 * 5 * 7


def test_attention_and_vectors_on_a_processor_are_counted_too() -> None:
    n, heads, width, queries, keys = 2, 3, 8, 4, 6
    q = torch.randn(n, heads, queries, width, requires_grad=True)
    k, v = (torch.randn(n, heads, keys, width, requires_grad=True) for _ in range(2))
    product = 2 * n * heads * queries * keys * width
    assert counted(lambda: scaled_dot_product_attention(q, k, v)).flops == 2 * product
    both = counted(lambda: scaled_dot_product_attention(q, k, v).sum().backward())
    assert both.flops == (2 + 5) * product  # the scores anew, and four gradients
    assert counted(lambda: torch.ones(4, 6) @ torch.ones(6)).flops == 2 * 4 * 6


def test_torch_s_fast_layer_has_as_many_operations_as_its_slow_one() -> None:
    layer, x = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval(), torch.randn(2, 5, 16)
    with torch.no_grad():
        fast = counted(lambda: layer(x))
    layer.train()
    assert fast.flops == counted(lambda: layer(x)).flops
    assert fast.flops == 2 * 2 * 5 * (4 * 16 * 16 + 2 * 16 * 32) + 4 * 2 * 5 * 5 * 16


def test_element_wise_work_has_no_formula() -> None:
    assert counted(lambda: torch.ones(9).mul(2).softmax(0).sum()).flops == 0


def test_one_batch_is_counted_and_others_go_by_their_size() -> None:
    layer, x, tally = nn.Linear(5, 7, bias=False), torch.randn(3, 5), Tally()
    for frames in (4, 8):  # the second is twice as large
        with tally.counting(stored(frames=frames), Encoder()):
            layer(x)
    assert tally.flops == 210
    assert (tally.batches, tally.seen) == (2, 3 * 12)
    assert tally.of_batches(10) == 10 * 210 * 1.5
    assert tally.per_second() == 210 / (3 * 3 * 0.5)  # of speech, without the padding
    assert flops(tally, tally, 2) == {"training": 630, "scoring": round(210 / 4.5, 1)}
    assert flops(Tally(), None, 2) == {}


def test_a_failed_batch_ends_the_counting() -> None:
    tally = Tally()
    with pytest.raises(ZeroDivisionError), tally.counting(stored(), Encoder()):
        raise ZeroDivisionError
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


# Whole runs.


@pytest.fixture(scope="module")
def run(tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "counted"
    return folder, train(load(tiny_recipe, ["optim.mixup=0.2"]), folder), torch.get_rng_state()


def test_a_record_has_the_parts_of_both_and_reads_back(run) -> None:
    folder, entry, _ = run
    assert entry.processor_seconds.keys() == entry.seconds.keys()
    parts = [entry.processor_seconds[p] for p in ("encode", "fit", "evaluate")]
    assert min(parts) >= 0
    assert 0 < sum(parts) <= entry.processor_seconds["total"] + 0.03
    assert entry.flops["training"] > 0
    assert entry.flops["scoring"] > 0
    again = Record.from_json(entry.to_json())
    assert (again.flops, again.processor_seconds) == (entry.flops, entry.processor_seconds)
    # the encoder is in eval's number; training reads its frames from the store
    _, scored = evaluate(folder)
    assert scored.flops["scoring"] >= entry.flops["scoring"]
    assert scored.processor_seconds["evaluate"] >= 0
    assert scored.seconds["evaluate"] > 0


def test_counting_changes_no_weight_and_no_random_number(run, tiny_recipe, tmp_path, monkeypatch):
    for hook in ("on_train_batch_start", "on_validation_batch_start"):
        monkeypatch.setattr(CountFlops, hook, lambda *_: None)
    plain = train(load(tiny_recipe, ["optim.mixup=0.2"]), tmp_path / "plain")
    folder, entry, random = run
    assert (plain.flops, bool(entry.flops)) == ({}, True)
    assert torch.equal(random, torch.get_rng_state())
    for name in ("best", "last"):
        with_, without = (
            checkpoint.read(f / f"checkpoints/{name}.ckpt") for f in (folder, plain.folder)
        )
        assert_same(with_["state_dict"], without["state_dict"])
        assert_same(with_["optimizer_states"], without["optimizer_states"])
    for name in ("predictions.jsonl", "valid.jsonl"):
        assert (folder / name).read_bytes() == (plain.folder / name).read_bytes()


def test_a_record_of_before_has_none() -> None:
    old = Record.from_json({"status": "ok", "seconds": {"fit": 1.0, "total": 2.0}})
    assert (old.processor_seconds, old.flops) == ({}, {})
    assert "flops" not in old.to_json()


@pytest.mark.parametrize("head", ["classification", "selm", "gen_ser"])
def test_a_counted_step_has_the_gradients_of_another_to_the_last_bit(head, tiny_recipe):
    small = ["head.lm_width=32", "head.lm_layers=1"] if head == "selm" else []
    module, data = build_run(tiny_recipe, [f"head={head}", *small])
    batch = next(iter(data.train_dataloader()))
    state = copy.deepcopy(module.state_dict())

    def step(tally: Tally | None) -> dict[str, torch.Tensor]:
        module.load_state_dict(state)
        module.zero_grad()
        torch.manual_seed(0)
        with tally.counting(batch, module.encoder) if tally else nullcontext():
            module.head.loss(module.frames(batch), batch.targets).loss.backward()
        return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}

    tally = Tally()
    assert_same(step(tally), step(None))
    assert tally.flops > 0
