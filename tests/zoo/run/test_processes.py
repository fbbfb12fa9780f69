"""Two and three processes: every head trains, and scores are those of one process."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig

import pytest
from close import assert_like
from serzoo.zoo.core import registry
from serzoo.zoo.run.config import load
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMALL = {name: ["head.lm_width=32", "head.lm_layers=1"] for name in ("selm", "speech_llm")}

# Lightning starts the other ranks by calling the very same command again
SCRIPT = """
import sys
import lightning as L
import torch
from serzoo.zoo.run import checkpoint
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.run.build import build, open_data

task, folder, devices, out = sys.argv[1:]
devices = int(devices)
torch.set_num_threads(1)
content = checkpoint.read(folder)
cfg = RunConfig.from_dict(content["serzoo"]["config"])
data = open_data(cfg)


class Check(L.Callback):
    def __init__(self):
        self.checked = 0

    def on_validation_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx > 0:  # ranks have other numbers of batches
            return
        state = {k: v.double().sum().item() for k, v in module.state_dict().items()}
        everyone = [None] * trainer.world_size
        torch.distributed.all_gather_object(everyone, state)
        assert all(s == everyone[0] for s in everyone), "ranks validate different weights"
        self.checked += 1


check = Check()
trainer = L.Trainer(
    accelerator="cpu",
    devices=devices,
    strategy="ddp" if devices > 1 else "auto",
    use_distributed_sampler=False,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    num_sanity_val_steps=0,
    max_epochs=2,
    callbacks=[check] if task == "fit" else [],
)
if task == "fit":
    trainer.fit(build(cfg, data.taxonomy), data)
    assert check.checked == 2
else:
    module = SERModule.load_from_checkpoint(folder)
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        module.tables["test"].write_jsonl(out)
        if devices == 3:
            assert len(trainer.test_dataloaders.sampler) < 3
"""


@pytest.fixture(scope="module")
def trained(tiny_recipe, tmp_path_factory):
    """A run of one process with several test batches."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = ["data.batch_size=2", "data.features=live", "optim.ema=0.9", "optim.mixup=0.3"]
    train(load(tiny_recipe, overrides), folder)
    return folder


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)

    def run(*arguments):
        process = subprocess.Popen(
            [sys.executable, str(path), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=400)
        finally:  # the other ranks, too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, said

    return run


@pytest.mark.parametrize("head", registry.names("heads"))
def test_two_processes_train_every_head(head, tiny_recipe, tmp_path, serzoo):
    """Without find_unused_parameters: a parameter that no loss touches would be an error."""
    log = tmp_path / "log.txt"
    arguments = [f"head={head}", *SMALL.get(head, []), f"trainer.out={tmp_path}"]
    process = serzoo("train", tiny_recipe, *arguments, "trainer.devices=2", log=log)
    assert process.wait(400) == 0, log.read_text()
    (path,) = tmp_path.glob("**/record.json")
    record = json.loads(path.read_text())
    assert record["processes"] == 2
    assert record["status"] == "ok"
    table = PredictionTable.read_jsonl(path.parent / "predictions.jsonl")
    assert len(table) == 6
    assert record["metrics"]["uar"] == pytest.approx(table.uar())
    assert log.read_text().count("test UAR") == 1  # the first rank speaks for all


def test_evaluation_does_not_depend_on_the_number_of_processes(trained, script, tmp_path):
    wanted = PredictionTable.read_jsonl(trained / "predictions.jsonl")
    for devices in (1, 2, 3):
        file = tmp_path / f"{devices}.jsonl"
        script("test", trained, devices, file)
        found = PredictionTable.read_jsonl(file)
        for field in ("ids", "speakers", "classes", "texts"):
            assert getattr(found, field) == getattr(wanted, field)
        assert found.labels.tolist() == wanted.labels.tolist()
        # other batches have another padding: the last of six digits may be another
        assert_like(found.scores, wanted.scores)


def test_all_ranks_validate_the_same_weights(trained, script):
    """Running statistics differ between ranks until they are told, averaged ones too."""
    script("fit", trained, 2, "-")


@pytest.mark.parametrize(
    "more", [[], ["trainer.strategy=fsdp", "optim.ema=0"]], ids=["ddp", "fsdp"]
)
def test_two_nodes_train_together(more, tiny_recipe, tmp_path, serzoo, monkeypatch):
    """The documented commands of torchrun, on two loopback addresses, against two processes."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    run = [f"{sysconfig.get_path('scripts')}/serzoo", "train", tiny_recipe, *more]
    nodes = [
        serzoo(
            *("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=tests"),
            *(f"--rdzv-endpoint=127.0.0.1:{port}", f"--local-addr=127.0.0.{k}", "--no-python"),
            *(*run, "trainer.num_nodes=2", f"trainer.out={tmp_path / 'nodes'}"),
            log=tmp_path / f"node-{k}.txt",
            script="torchrun",
        )
        for k in (1, 2)
    ]
    for k, node in enumerate(nodes, 1):
        assert node.wait(400) == 0, (tmp_path / f"node-{k}.txt").read_text()
    one = serzoo(
        *run[1:], "trainer.devices=2", f"trainer.out={tmp_path / 'one'}", log=tmp_path / "one.txt"
    )
    assert one.wait(400) == 0, (tmp_path / "one.txt").read_text()
    tables = []
    for where in ("nodes", "one"):
        (path,) = (tmp_path / where).glob("**/record.json")
        record = json.loads(path.read_text())
        assert (record["status"], record["processes"]) == ("ok", 2)
        tables.append(PredictionTable.read_jsonl(path.parent / "predictions.jsonl"))
    assert tables[0].ids == tables[1].ids
    assert_like(tables[0].scores, tables[1].scores)


LEAVE = """
import torch
from serzoo.zoo.run import devices
from serzoo.zoo.run.schema import RunConfig, TrainerConfig

devices.strategy(RunConfig(trainer=TrainerConfig(devices=2)))
torch.distributed.init_process_group("gloo")
torch.distributed.all_reduce(torch.ones(3))
"""


def test_a_process_that_ends_leaves_the_others_without_an_abort(tmp_path):
    """Gloo aborted one exit in ten; `torchrun` then reports a finished run as failed."""
    script = tmp_path / "leave.py"
    script.write_text(LEAVE)
    torchrun = os.path.join(sysconfig.get_path("scripts"), "torchrun")
    command = [torchrun, "--standalone", "--nproc-per-node=2", str(script)]
    ended = [subprocess.run(command, capture_output=True, text=True) for _ in range(12)]
    assert [process.returncode for process in ended] == [0] * 12, ended[-1].stderr
