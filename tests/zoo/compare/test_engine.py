"""Engines: what is refused before anything runs, and how a cluster's tasks are followed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from facts import says, tells
from serzoo.zoo.compare import compare as comparing
from serzoo.zoo.compare import engine as engines
from serzoo.zoo.compare import pool, slurm, tasks
from serzoo.zoo.compare.engine import Batch
from serzoo.zoo.compare.pool import Job
from serzoo.zoo.core.errors import ComparisonError, ConfigError, DataWarning
from serzoo.zoo.core.files import write_json
from serzoo.zoo.run.record import read_record

submitit = pytest.importorskip("submitit")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``cluster(sinfo="main|1:00:00")``: programs that print a text, or fail with it."""

    def make(fails: Sequence[str] = (), **texts: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name in ("sbatch", "srun", "squeue", "sinfo", "scancel"):
            to, code = (">&2", 1) if name in fails else ("", 0)
            text = texts.get(name, "")
            (folder / name).write_text(
                f'#!/bin/sh\necho "$@" >> {folder}/{name}.asked\n'
                f"cat <<'X' {to}\n{text}\nX\nexit {code}\n"
            )
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return make


SINFO = "main|1:00:00\nlong|infinite\nweek|7-00:00:00"


def test_the_words_of_the_engine_are_taken_out(cluster: Callable[..., None]) -> None:
    cluster(sinfo=SINFO)
    found, others = comparing.read_engine(
        ["engine=slurm", "seed=[1]", "engine.partition=week", "engine.array=64", "engine.time=90",
         "engine.sbatch.reservation=ours", "engine.setup=[module load cuda]"], 3
    )  # fmt: skip
    assert others == ["seed=[1]"]
    assert isinstance(found, slurm.Slurm)
    assert (found.partition, found.array, found.time, found.workers) == ("week", 64, 90, 3)
    assert found.sbatch == {"reservation": "ours"}
    assert found.setup == ["module load cuda"]
    here, all_ = comparing.read_engine(["seed=[1]", "optim.lr=1"], 2)
    assert (here.NAME, here.slots, all_) == ("local", 2, ["seed=[1]", "optim.lr=1"])


def test_every_engine_is_a_class_of_its_name() -> None:
    assert list(comparing.ENGINES) == ["local", "slurm", "ray"]
    assert not [n for n, kind in comparing.ENGINES.items() if "workers" in set(kind.keys())]


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        (["engine=slrm"], ("slrm", "slurm", "local")),
        (["engine=slurm", "engine.partitions=main"], ("engine.partitions", "partition")),
        (["engine.partition=main"], ("engine=local", "engine.partition")),
        (["engine=slurm", "engine.array=0"], ("array", 0, 1)),
        (["engine=slurm", "engine.time=soon"], ("time", "soon")),
        (["engine=slurm", "engine.partition=man"], ("engine.partition=man", "'main'")),
        (["engine=slurm", "engine.partition=main", "engine.time=61"], (61, "'main'", 60)),
        (["engine=slurm", "engine.sbatch=3"], ("sbatch", 3)),
    ],
)
def test_what_an_engine_cannot_do_is_refused(
    typed: list[str], facts: tuple[object, ...], cluster: Callable[..., None]
) -> None:
    cluster(sinfo=SINFO)
    with pytest.raises(ConfigError, match=says(*facts)):
        comparing.read_engine(typed)


def test_a_machine_without_slurm_is_told(
    cluster: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        with pytest.raises(ConfigError, match=says("sbatch", "squeue", "sinfo", "login node")):
            comparing.read_engine(["engine=slurm"])
    cluster(sinfo="no controller", fails=["sinfo"])
    with pytest.raises(ConfigError, match=says("controller", "`sinfo`")):
        comparing.read_engine(["engine=slurm"])
    monkeypatch.setattr(comparing, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=says("submitit", "pip install 'serzoo[slurm]'")):
        comparing.read_engine(["engine=slurm"])


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("1:00:00", 60), ("30:00", 30), ("2-01:30:30", 2970.5), ("infinite", None), ("n/a", None)],
)
def test_a_time_of_slurm_in_minutes(text: str, minutes: float | None) -> None:
    assert slurm._minutes(text) == minutes


def test_a_task_is_counted_as_a_node() -> None:
    one = slurm.Slurm(gpus_per_node=4, array=8)
    assert one.slots == 32
    # 32 hours of cells, four at a time: 8 hours of nodes with 4 GPUs each
    assert tells(one.cost(32 * 3600), "8 node hours", "32 GPU hours")
    assert tells(slurm.Slurm().cost(1800), "0.5 node hours")


class Seen:
    """What a comparison is told of its jobs."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.numbers: dict[str, int] = {}

    def started(self, job: Job, k: int) -> None:
        self.said.append(f"started {job.name}")
        self.numbers[job.name] = k

    def ended(self, job: Job, k: int, status: str) -> None:
        self.said.append(f"{status} {job.name}")
        assert self.numbers.get(job.name, k) == k


def batch(folder: Path, jobs: Sequence[Job], seen: Seen | None = None, **more: Any) -> Batch:
    """Jobs of a comparison; what is said of them goes to ``seen``."""
    seen = seen or Seen()
    known = {"limit": None, "say": seen.said.append, **more}
    return Batch(jobs=jobs, folder=folder, started=seen.started, ended=seen.ended, **known)


def jobs_in(folder: Path, n: int) -> list[Job]:
    return [Job(f"cell-{i}", {"seed": i}, folder / "cells" / f"cell-{i}") for i in range(n)]


def call(cfg: Any, out: Path, **options: Any) -> None:
    """A function of a module, which a job may name."""


def test_a_job_is_the_same_after_json(tmp_path: Path) -> None:
    job = Job("a", {"x": [1, 0.1]}, tmp_path / "a", {"facts": {"k": None}}, call)
    row = json.loads(json.dumps(tasks.to_json(job)))
    assert row["call"].endswith(":call")
    found = tasks.from_json({**row, "call": "pathlib:Path"})
    assert (found.name, found.config, found.folder, found.options) == (
        job.name, job.config, job.folder, job.options
    )  # fmt: skip
    assert found.call is Path
    assert tasks.from_json(tasks.to_json(Job("a", {}, tmp_path))).call is None


@pytest.fixture
def given(tmp_path: Path) -> tasks.Submission:
    """Five cells in two tasks of job 7."""
    jobs = jobs_in(tmp_path, 5)
    made = slurm.Slurm(array=2).submission(batch(tmp_path, jobs, limit=60.0))
    return made.submitted(["7_0", "7_1"])


def test_tasks_have_equal_shares(given: tasks.Submission) -> None:
    names = [[row["name"] for row in given.jobs_of(task)] for task in (0, 1)]
    assert names == [["cell-0", "cell-2", "cell-4"], ["cell-1", "cell-3"]]
    again = tasks.Submission.read(given.folder)
    assert again == given
    assert again.job == "7"


def run_in_process(monkeypatch: pytest.MonkeyPatch, stop_at: str = "") -> list[str]:
    """The pool runs jobs in this process: it says so, and notices something about the first."""
    ran: list[str] = []

    def run(jobs: Sequence[Job], **how: Any) -> None:
        for k, job in enumerate(jobs):
            how["started"](job, k)
            if job.name == stop_at and job.name not in ran:
                ran.append(job.name)
                raise SystemExit  # what submitit does when it has requeued the task
            if not ran:
                tasks.tell("2 files are gone")
            ran.append(job.name)
            write_json(job.folder / "record.json", {"status": "ok"})
            how["ended"](job, k, "ok")

    monkeypatch.setattr(pool, "run", run)
    return ran


def events(given: tasks.Submission, task: int) -> list[str]:
    return [
        " ".join([row["event"], *([row["name"]] if "name" in row else [])])
        for row in tasks.lines(given.log(task))
    ]


@pytest.mark.filterwarnings("ignore:2 files are gone")
def test_a_requeued_task_goes_on_where_it_was(
    given: tasks.Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run_in_process(monkeypatch, stop_at="cell-2")
    task = slurm.Task(str(given.folder), 0)
    with pytest.raises(SystemExit):
        task()
    with given.log(0).open("a") as log:
        log.write('{"event": "ended", "name"')  # a node that fails cuts a line
    assert task.checkpoint().function == task
    task()
    assert ran == ["cell-0", "cell-2", "cell-2", "cell-4"]
    assert events(given, 0) == [
        *("began", "started cell-0", "ended cell-0", "started cell-2"),
        *("began", "started cell-2", "ended cell-2", "started cell-4", "ended cell-4", "done"),
    ]


def follow(followed: tasks.Followed, seen: Seen) -> None:
    told = batch(Path(), [], seen)
    tasks.follow([followed], slurm._Queue(), told, every=0.0, ask=0.0)


def test_what_tasks_write_is_told_once(
    given: tasks.Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_process(monkeypatch)
    seen = Seen()
    followed = tasks.Followed.new(given, jobs_in(tmp_path, 5))
    with pytest.warns(DataWarning, match="2 files are gone"):
        tasks.work(given.folder, 1)
    with pytest.warns(DataWarning, match="2 files are gone") as caught:
        followed.look(batch(tmp_path, [], seen), 0)
    followed.look(batch(tmp_path, [], seen), 0)
    assert len(caught) == 1
    assert seen.said == ["started cell-1", "ok cell-1", "started cell-3", "ok cell-3"]
    assert sorted(name for _, name in followed.open) == ["cell-0", "cell-2", "cell-4"]
    assert len(set(seen.numbers.values())) == 2


def test_cells_of_a_task_that_is_over_are_recorded_as_failed(
    given: tasks.Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_process(monkeypatch, stop_at="cell-2")
    with pytest.raises(SystemExit), pytest.warns(DataWarning):
        tasks.work(given.folder, 0)
    write_json(tmp_path / "cells" / "cell-4" / "record.json", {"status": "ok"})  # and died then
    asked = iter([{"7_0": ("RUNNING", "None"), "7_1": ("RUNNING", "None")}, None])
    over = {"7_0": ("TIMEOUT", "None"), "7_1": ("CANCELLED", "None")}
    monkeypatch.setattr(slurm, "states", lambda job: next(asked, over))
    seen = Seen()
    jobs = jobs_in(tmp_path, 5)
    with pytest.warns(DataWarning):
        follow(tasks.Followed.new(given, jobs), seen)
    ends = sorted(line for line in seen.said if not line.startswith("started"))
    assert ends == ["failed cell-1", "failed cell-2", "failed cell-3", "ok cell-0", "ok cell-4"]
    late, never = read_record(jobs[2].folder), read_record(jobs[1].folder)
    assert (late.reason, never.reason) == ("limit", "died")
    assert tells(late.error, "7_0", "timeout")
    assert tells(late.details, "engine.time", "engine.requeue", "7_0_0_log.err")
    assert tells(never.error, "7_1", str(given.folder))
    assert engines.submissions(tmp_path) == []


@pytest.mark.parametrize(
    ("state", "reason", "ended"),
    [("FAILED", "None", ["7"]), ("PENDING", "launch failed requeued held", ["7_0", "7_1", "7"])],
)
def test_nodes_that_do_not_see_the_folder_end_the_job(
    state: str,
    reason: str,
    ended: list[str],
    given: tasks.Submission,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: Callable[..., None],
) -> None:
    cluster()
    monkeypatch.setattr(slurm, "states", lambda job: dict.fromkeys(given.ids, (state, reason)))
    with pytest.raises(ComparisonError, match=says("job 7", str(given.folder), "--out")):
        follow(tasks.Followed.new(given, jobs_in(tmp_path, 5)), Seen())
    assert set((tmp_path / "bin" / "scancel.asked").read_text().split()) == set(ended)
    assert engines.submissions(tmp_path) == []
    assert read_record(tmp_path / "cells" / "cell-0") is None


@pytest.mark.parametrize(("ahead", "word"), [(30.0, "ahead"), (-30.0, "behind")])
def test_a_clock_that_differs_is_told_once(
    ahead: float,
    word: str,
    given: tasks.Submission,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_in_process(monkeypatch)
    ours = time.time
    with monkeypatch.context() as node:
        node.setattr(tasks.time, "time", lambda: ours() + ahead)
        with pytest.warns(DataWarning):
            tasks.work(given.folder, 0)
        tasks.work(given.folder, 1)
    followed = tasks.Followed.new(given, jobs_in(tmp_path, 5))
    with pytest.warns(DataWarning) as caught:
        followed.look(batch(tmp_path, []), 0)
    clocks = [str(w.message) for w in caught if "clock" in str(w.message)]
    assert len(clocks) == 1
    assert tells(clocks[0], "30 s", word)


def test_an_earlier_job_is_followed_and_not_given_again(
    given: tasks.Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_process(monkeypatch, stop_at="cell-2")
    with pytest.raises(SystemExit), pytest.warns(DataWarning):
        tasks.work(given.folder, 0)
    live = {"7_0": ("PENDING", "BeginTime"), "7_1": ("CANCELLED", "None")}
    monkeypatch.setattr(slurm, "states", lambda job: live)
    new: list[list[str]] = []

    def submit(self: slurm.Slurm, submission: tasks.Submission) -> list[str]:
        new.append([row["name"] for row in submission.rows])
        return ["8"]

    monkeypatch.setattr(slurm.Slurm, "_submit", submit)
    left = [job for job in jobs_in(tmp_path, 5) if job.name != "cell-0"]
    said: list[str] = []
    with pytest.raises(engines.DetachedError, match=says("scancel 7 8", "serzoo report")):
        slurm.Slurm(detach=True, probe=0).run(batch(tmp_path, left, say=said.append))
    assert new == [["cell-1", "cell-3"]]  # the task of the other two still runs
    assert tells(said, "2 cells", "job 7")
    assert [f.name for f in engines.submissions(tmp_path)] == ["slurm-1", "slurm-2"]
    text = slurm.Slurm().interrupted(tmp_path, 4, "cells")
    assert tells(text, "cells: 4", "scancel 7 8")
    monkeypatch.setattr(slurm, "states", lambda job: None)
    with pytest.raises(ComparisonError, match=says("job 7", "`squeue`")):
        slurm.Slurm().run(batch(tmp_path, left))


def test_a_job_whose_id_was_not_written_is_found_by_its_name(
    tmp_path: Path, cluster: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slurm.Slurm(array=2).submission(batch(tmp_path, jobs_in(tmp_path, 5)))
    assert made.ids == []
    cluster()  # SLURM has no such job
    assert slurm.Slurm()._known(made) == made
    cluster(squeue="9\n9")
    found = slurm.Slurm()._known(made)
    assert f"--name={made.settings['name']}" in (tmp_path / "bin" / "squeue.asked").read_text()
    assert found.ids == ["9_0", "9_1"]
    assert tasks.Submission.read(made.folder) == found
    for task, name in enumerate(found.ids):  # what the job waits for
        file = found.folder / f"{name}_submitted.pkl"
        given = submitit.core.utils.DelayedSubmission.load(file)
        assert given.function == slurm.Task(str(found.folder), task)
    cluster(squeue="no controller", fails=["squeue"])
    with pytest.raises(ComparisonError, match=says("controller", "`squeue`")):
        slurm.Slurm()._known(made)


def test_a_task_that_was_given_up_runs_nothing(
    given: tasks.Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run_in_process(monkeypatch)
    given.end()
    slurm.Task(str(given.folder), 0)()
    assert ran == []
    assert tasks.lines(given.log(0)) == []


def test_a_task_has_the_variables_of_the_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_in_process(monkeypatch)
    monkeypatch.setenv("SERZOO_DATA", "there")
    monkeypatch.setenv("SERZOO_CACHE", "of the call")
    made = slurm.Slurm().submission(batch(tmp_path, jobs_in(tmp_path, 1)))
    monkeypatch.delenv("SERZOO_DATA")
    monkeypatch.setenv("SERZOO_CACHE", "of the node")
    with pytest.warns(DataWarning):
        tasks.work(made.folder, 0)
    assert [os.environ[f"SERZOO_{name}"] for name in ("DATA", "CACHE")] == ["there", "of the node"]


class Nodes(tasks.Cluster):
    """A cluster that says what it was made with."""

    def __init__(self, over: dict[int, tasks.Over] | None = None) -> None:
        self.said, self.cancelled = over, 0

    def over(self, submission: tasks.Submission) -> dict[int, tasks.Over] | None:
        return self.said

    def cancel(self, submission: tasks.Submission) -> None:
        self.cancelled += 1

    def queue(self, submission: tasks.Submission, *, full: bool = False) -> str:
        return "nodes: 3 busy" if full else ""


@pytest.fixture(params=[True, False])
def asked(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tasks.Submission:
    """A probe of one task, whose jobs read a folder ``data``: by its path, or of a corpus."""
    monkeypatch.setattr(tasks, "PROBE_ASK", 0.0)
    monkeypatch.setattr(tasks, "PROBE_EVERY", 0.0)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.wav").touch()
    monkeypatch.setenv("SERZOO_DATA", str(tmp_path))
    configs = [
        {"data": {"root": request.param and str(tmp_path / "data")}, "corpus": corpus}
        for corpus in ("data", "embedded")
    ]
    jobs = [Job(cfg["corpus"], cfg, tmp_path / "cells" / cfg["corpus"]) for cfg in configs]
    return tasks.Submission.probe(batch(tmp_path, jobs), slurm.Slurm()).submitted(["7"])


def test_a_probe_says_that_a_machine_can_run_cells(asked: tasks.Submission, tmp_path: Path) -> None:
    tasks.work(asked.folder, 0)
    said: list[str] = []
    nodes = Nodes()
    tasks.probe(asked, nodes, said.append, minutes=1)
    assert len(said) == 1
    assert tells(said, os.uname().nodename, "0.0 s")
    assert nodes.cancelled == 0
    assert engines.submissions(tmp_path) == []  # no later call follows it
    again = tasks.Submission.probe(batch(tmp_path, []), slurm.Slurm())
    assert (again.folder, tasks.lines(again.log(0))) == (asked.folder, [])


@pytest.mark.parametrize(("ahead", "word"), [(30.0, "ahead"), (-30.0, "behind")])
def test_a_probe_refuses_another_clock(
    ahead: float, word: str, asked: tasks.Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, nodes = time.time, Nodes()
    with monkeypatch.context() as node:
        node.setattr(tasks.time, "time", lambda: ours() + ahead)
        tasks.work(asked.folder, 0)
    facts = os.uname().nodename, "30 s", word, "NTP", "engine.probe=0"
    with pytest.raises(ComparisonError, match=says(*facts)):
        tasks.probe(asked, nodes, print, minutes=1)
    assert nodes.cancelled == 1


def test_a_probe_refuses_a_machine_without_the_data(
    asked: tasks.Submission, tmp_path: Path
) -> None:
    (tmp_path / "data" / "a.wav").unlink()  # an empty folder, where a disk should be mounted
    with pytest.raises(FileNotFoundError):
        tasks.work(asked.folder, 0)
    facts = os.uname().nodename, tmp_path / "data" / "a.wav"
    with pytest.raises(ComparisonError, match=says(*facts)):
        tasks.probe(asked, Nodes(), print, minutes=1)


@pytest.mark.parametrize(
    ("over", "facts"),
    [
        (None, ("nodes", "3 busy", "engine.probe=0")),
        ({0: tasks.Over("failed", "", host="n3")}, ("n3", "failed", "--out")),
    ],
)
def test_a_probe_without_an_answer_is_told(
    over: dict[int, tasks.Over] | None, facts: tuple[str, ...], asked: tasks.Submission
) -> None:
    nodes = Nodes(over)
    with pytest.raises(ComparisonError, match=says(*facts)):
        tasks.probe(asked, nodes, print, minutes=0 if over is None else 1)
    assert nodes.cancelled == 1


def test_cells_of_a_cluster_are_not_run_here_too(given: tasks.Submission, tmp_path: Path) -> None:
    engines.refuse_other(slurm.Slurm(), tmp_path)
    with pytest.raises(
        ComparisonError, match=says("engine=slurm", "engine=local", str(given.folder))
    ):
        engines.refuse_other(engines.Local(), tmp_path)
    given.end()
    engines.refuse_other(engines.Local(), tmp_path)


def test_the_script_of_a_task_has_its_settings(
    cluster: Callable[..., None], tmp_path: Path
) -> None:
    cluster(sbatch="Submitted batch job 12")
    chosen = slurm.Slurm(
        partition="main", array=2, time=90, gpus_per_node=2, mem_gb=1.5, warn=60,
        sbatch={"reservation": "ours"}, setup=["module load cuda"],
    )  # fmt: skip
    made = chosen.submission(batch(tmp_path, jobs_in(tmp_path, 3)))
    assert chosen._submit(made) == ["12_0", "12_1"]
    text = (made.folder / "12_submission.sh").read_text()
    for option in (
        *("partition=main", "time=90", "gpus-per-node=2", "mem=1536M", "signal=USR2@60"),
        *("reservation=ours", "requeue", "array=0-1%2", f"job-name={made.settings['name']}"),
    ):
        assert f"#SBATCH --{option}\n" in text
    assert "\nmodule load cuda\n" in text


def test_a_cluster_that_refuses_a_job_is_quoted(
    cluster: Callable[..., None], tmp_path: Path
) -> None:
    cluster(sbatch="sbatch: error: Invalid account or account/partition", fails=["sbatch"])
    made = slurm.Slurm().submission(batch(tmp_path, jobs_in(tmp_path, 3)))
    with pytest.raises(ConfigError, match=says("Invalid account", "engine.sbatch.KEY")):
        slurm.Slurm()._submit(made)
    assert engines.submissions(tmp_path) == []


def test_a_class_that_only_this_process_has_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.own, "ship", lambda: [("heads", "mine", Seen, "0")])
    with pytest.raises(ConfigError, match=says("mine", "FILE.py:NAME")):
        slurm.Slurm().submission(batch(tmp_path, jobs_in(tmp_path, 1)))


def test_a_damaged_submission_is_told(given: tasks.Submission) -> None:
    (given.folder / "jobs.json").write_text("{}")
    with pytest.raises(ComparisonError, match=says("jobs.json", "remove", str(given.folder))):
        tasks.Submission.read(given.folder)
