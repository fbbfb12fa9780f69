"""What TensorBoard shows: the same tags for every head, read back and served."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from facts import says
from scipy.spatial.distance import pdist
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run import board, config
from serzoo.zoo.run.adapt import adapt
from serzoo.zoo.run.board import folder_of, serve
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

SIZES = {"tensors": 0, "images": 0, "audio": 0, "scalars": 0}  # 0 = keep all
HEADS = {"classification": [], "gen_ser": ["head.steps=3"]}


@pytest.fixture(scope="module")
def suite(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite's folder with a cell of two heads, on a free axis, with audio of errors."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    cells = {}
    for head, more in HEADS.items():
        cfg = config.load(tiny_recipe, [f"head={head}", *more, "trainer.board_audio=2"])
        cells[head] = cfg, {"share": 1.0}
        train(cfg, folder / "cells" / head, facts={"axes": {"share": 1.0}})
    board.declare(folder / "cells", cells)
    return folder


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance=SIZES).Reload()


@pytest.fixture(scope="module")
def found(suite: Path) -> dict[str, EventAccumulator]:
    return {head: events(suite / "cells" / head) for head in HEADS}


def table_of(suite: Path, head: str) -> PredictionTable:
    return PredictionTable.read_jsonl(suite / "cells" / head / "predictions.jsonl")


def test_all_heads_show_the_same(found: dict[str, EventAccumulator]) -> None:
    for read in found.values():
        tags = read.Tags()
        assert tags["images"] == ["test/confusion", "test/reliability"]
        assert set(tags["tensors"]) >= {
            "custom_scalars__config__", "errors/surest/text_summary",
            "pr/angry", "pr/happy", "pr/sad",
        }  # fmt: skip
    tensors = [set(read.Tags()["tensors"]) for read in found.values()]
    assert tensors[0] - tensors[1] == {"_hparams_/experiment"}  # the columns, declared once
    assert tensors[1] <= tensors[0]
    scalars = [{t for t in r.Tags()["scalars"] if t[:5] != "head/"} for r in found.values()]
    assert scalars[0] == scalars[1]


def test_the_layout_lays_heads_over_each_other(found: dict[str, EventAccumulator]) -> None:
    layouts = []
    for read in found.values():
        layout = Layout()
        (event,) = read.Tensors("custom_scalars__config__")
        layout.ParseFromString(event.tensor_proto.string_val[0])
        layouts.append(layout)
        scalars = read.Tags()["scalars"]
        for category in layout.category:
            for chart in category.chart:
                (pattern,) = chart.multiline.tag
                shown = [t for t in scalars if re.match(pattern, t)]
                assert len(shown) == 1 or pattern in ("head/.*", "encoder/.*"), pattern
    assert layouts[0] == layouts[1]  # which TensorBoard joins


@pytest.mark.parametrize("head", HEADS)
def test_precision_and_recall_are_those_of_the_predictions(
    suite: Path, found: dict[str, EventAccumulator], head: str
) -> None:
    table = table_of(suite, head)
    for i, name in enumerate(table.classes):
        (event,) = found[head].Tensors(f"pr/{name}")
        proto = event.tensor_proto
        shape = [d.size for d in proto.tensor_shape.dim]
        values = np.frombuffer(proto.tensor_content, np.float32) if proto.tensor_content else None
        rows = np.array(proto.float_val) if values is None else values
        right, wrong, *_ = rows.reshape(shape)
        sure, is_it = table.probabilities()[:, i], table.labels == i
        limits = np.floor(sure * (shape[1] - 1)).astype(int)  # the plugin's bins of thresholds
        for k in (0, 20, 40, 80, shape[1] - 1):
            assert right[k] == (limits[is_it] >= k).sum()
            assert wrong[k] == (limits[~is_it] >= k).sum()


@pytest.mark.parametrize("head", HEADS)
def test_the_projector_knows_labels_and_speakers(suite: Path, head: str) -> None:
    folder, table = suite / "cells" / head, table_of(suite, head)
    (facts,) = folder.rglob("metadata.tsv")
    header, *rows = [line.split("\t") for line in facts.read_text().splitlines()]
    assert header == ["label", "predicted", "right", "speaker", "id"]
    assert [r[4] for r in rows] == table.ids
    assert [r[0] for r in rows] == [table.classes[k] for k in table.labels]
    assert [r[1] for r in rows] == [table.classes[k] for k in table.predicted]
    assert [r[2] == "yes" for r in rows] == (table.labels == table.predicted).tolist()
    assert [r[3] for r in rows] == table.speakers
    points = np.loadtxt(next(folder.rglob("tensors.tsv")), delimiter="\t")
    assert points.shape == (6, 16)  # of the encoder: fewer than its components would be
    assert "metadata.tsv" in (folder / "projector_config.pbtxt").read_text()


def test_wide_frames_are_shown_by_their_leading_components() -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(50, 20)) @ rng.normal(size=(20, 300))  # of rank 20
    shown = board.components(wide)
    assert shown.shape == (50, board.WIDTH)
    assert pdist(shown) == pytest.approx(pdist(wide), rel=1e-2)


def test_a_large_test_part_is_thinned_the_same_for_every_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(board, "POINTS", 3)
    part = SimpleNamespace(utterances=[SimpleNamespace(id=f"u{k}") for k in (4, 1, 0, 3, 6, 2, 5)])
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(datasets={"test": part}))
    module: Any = SimpleNamespace(encoder=SimpleNamespace(register_forward_hook=lambda hook: None))
    shown = board.Board()
    shown.on_test_start(trainer, module)
    assert shown.wanted == {"u0", "u3", "u6"}


def made(labels: list[int], scores: list[list[float]]) -> PredictionTable:
    names = [f"u{i}" for i in range(len(labels))]
    return PredictionTable(names, ["s"] * len(names), np.array(labels), np.log(scores), ["a", "b"])


def test_the_surest_errors_come_first() -> None:
    table = made([0, 0, 1, -1, 1, 0], [[0.9, 0.1], [0.3, 0.7], [0.9, 0.1], [1, 1e-9], [0.6, 0.4], [0.1, 0.9]])  # fmt: skip # noqa: E501
    assert board.surest_errors(table, 9) == [2, 5, 1, 4]
    assert board.surest_errors(table, 2) == [2, 5]


@pytest.mark.parametrize("head", HEADS)
def test_errors_are_listed_and_only_on_demand_played(
    suite: Path, found: dict[str, EventAccumulator], head: str, tiny_speech: Path, tiny_recipe: str
) -> None:
    table = table_of(suite, head)
    wrong = board.surest_errors(table, board.ERRORS)
    (event,) = found[head].Tensors("errors/surest/text_summary")
    lines = event.tensor_proto.string_val[0].decode().splitlines()[2:]
    assert [line.strip("| ").split(" | ")[-1] for line in lines] == [table.ids[i] for i in wrong]
    assert found[head].Tags()["audio"] == [f"errors/{n}" for n in range(1, min(2, len(wrong)) + 1)]
    for number, i in enumerate(wrong[:2], 1):
        (event,) = found[head].Audio(f"errors/{number}")
        heard, rate = soundfile.read(io.BytesIO(event.encoded_audio_string))
        own, _ = soundfile.read(tiny_speech / f"{table.ids[i].partition('/')[2]}.wav")
        assert (rate, len(heard)) == (16_000, len(own))
        assert np.abs(heard - own).max() < 2**-14
    assert config.load(tiny_recipe).trainer.board_audio == 0


def test_bars_show_the_weights() -> None:
    figure = board.bars_figure({"layer/3": 0.25, "layer/4": 0.75}, "weight", "t")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0.25, 0.75]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["3", "4"]


def test_weights_of_layers_are_an_image_where_layers_are_mixed(
    tiny_recipe: str, tiny_hf: Callable[..., str], tmp_path: Path
) -> None:
    model = [f"encoder.name={tiny_hf()}", "encoder.revision=null", "encoder.layers=[0,1,2]"]
    recipe = json.dumps({"groups": {"encoder": "hf", "head": "linear"}, **own_data(tiny_recipe)})
    (tmp_path / "mixed.yaml").write_text(recipe)
    entry = train(config.load(str(tmp_path / "mixed.yaml"), model), tmp_path / "run")
    assert sum(entry.layer_weights.values()) == pytest.approx(1)
    read = events(tmp_path / "run")
    assert read.Tags()["images"] == ["test/confusion", "test/reliability", "encoder/layers"]


def own_data(recipe: str) -> dict[str, Any]:
    """The recipe's corpus, for another encoder."""
    text = config.read_mapping(Path(recipe).read_text(), recipe)
    kept = {k: text[k] for k in ("corpus", "protocol", "data", "trainer")}
    return {**kept, "optim": {"epochs": 1}}


# Adaptations.


@pytest.fixture(scope="module")
def adapted(suite: Path, tiny_speech: Path) -> dict[str, Path]:
    """A number of adaptations beside each other, to the speakers that no model has heard."""
    cells = suite.parent / "few" / "cells"
    how: dict[str, dict[str, Any]] = {
        "classification-k0": {"shots": 0},
        "classification-head": {"shots": 2, "draw": 1, "tuning": "head"},
        "gen_ser-head": {"shots": 2, "draw": 2, "tuning": "head"},
        "gen_ser-full": {"shots": 2, "draw": 2, "tuning": "full"},
    }
    target: dict[str, Any] = {"data": "csv", "root": str(tiny_speech), "protocol": "kfold-5"}
    rows = {}
    for name, options in how.items():
        source = suite / "cells" / name.split("-")[0]
        adapt(source, **target, **options, steps=3, save=False, out=cells / name)
        cfg = RunConfig.from_dict(json.loads((source / "record.json").read_text())["config"])
        point = {"draw": 1, "tuning": "none", **options}
        rows[name] = cfg, point
    board.declare(cells, rows)
    return {name: cells / name for name in how}


def test_adaptations_show_what_runs_show(
    adapted: dict[str, Path], found: dict[str, EventAccumulator]
) -> None:
    run = found["gen_ser"].Tags()
    for name, folder in adapted.items():
        read = events(folder)
        tags, record = read.Tags(), json.loads((folder / "record.json").read_text())
        assert tags["images"] == run["images"]
        assert set(run["tensors"]) <= set(tags["tensors"])
        assert set(tags["scalars"]) <= set(run["scalars"])
        for key in ("uar", "wa", "f1"):
            (event,) = read.Scalars(f"test/{key}")
            assert event.value == pytest.approx(record["metrics"][key])
            assert event.step == (0 if name.endswith("k0") else 3)
        losses = read.Scalars("train/loss") if record["shots"] else []
        assert [e.step for e in losses] == [1, 2, 3][: record["steps"]]
        if losses:
            assert losses[0].value == pytest.approx(record["loss"]["first"])
            assert losses[-1].value == pytest.approx(record["loss"]["last"])
        (shown,) = read.Images("test/confusion")
        assert shown.encoded_image_string.startswith(b"\x89PNG")


def test_a_row_says_how_a_model_was_adapted(adapted: dict[str, Path]) -> None:
    for name, folder in adapted.items():
        content = events(folder).summary_metadata["_hparams_/session_start_info"].plugin_data
        start = HParamsPluginData.FromString(content.content).session_start_info
        row = {k: v.string_value or v.number_value for k, v in start.hparams.items()}
        record = json.loads((folder / "record.json").read_text())
        assert row["head"] == name.split("-")[0]
        assert [row[k] for k in ("shots", "draw", "tuning")] == [
            record[k] for k in ("shots", "draw", "tuning")
        ]
        assert "seed" not in row


def test_an_adaptation_that_is_made_again_shows_its_last_attempt(
    adapted: dict[str, Path], suite: Path, tiny_speech: Path
) -> None:
    folder = adapted["classification-k0"]
    before = sorted(p.name for p in folder.glob(board.EVENTS))
    assert len(before) == 2  # its own, and the columns of all
    (folder / "record.json").unlink()
    target: dict[str, Any] = {"data": "csv", "root": str(tiny_speech), "protocol": "kfold-5"}
    adapt(suite / "cells" / "classification", **target, shots=0, steps=3, save=False, out=folder)
    after = sorted(p.name for p in folder.glob(board.EVENTS))
    assert len(after) == 2
    assert len(set(before) & set(after)) == 1
    assert len(events(folder).Scalars("test/uar")) == 1


# Serving.


def ask(address: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{address}data/{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_one_command_serves_the_comparison(
    suite: Path, serzoo: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    log = tmp_path / "log.txt"
    process = serzoo("tensorboard", "two", "--out", str(suite.parent), "--port", "0", log=log)
    wait_until(lambda: "(Ctrl-C ends it)" in log.read_text(), process, 60)
    (address,) = re.findall(r"http://localhost:\d+/", log.read_text())
    wait_until(lambda: set(ask(address, "runs")) == set(HEADS), process, 60)
    wait_until(lambda: ask(address, "plugin/custom_scalars/layout"), process, 60)
    layout = ask(address, "plugin/custom_scalars/layout")
    titles = {c["title"]: [chart["title"] for chart in c["chart"]] for c in layout["category"]}
    assert titles == {k: list(v) for k, v in board.LAYOUT.items()}
    assert set(ask(address, "plugin/projector/runs")) == set(HEADS)
    answer = ask(address, "plugin/hparams/experiment", {})
    names = [c["name"] for c in answer["hparamInfos"]]
    # what differs, and as much of what cells are called as the tab shows; then the knobs
    assert set(names[:5]) == {"head", "axis share", "encoder", "fold", "recipe"}
    assert names[5:] == sorted(names[5:])
    assert {"axis share", "head.steps", "head.label_smoothing", "optim.lr"} <= set(names)
    tags = [c["name"]["tag"] for c in answer["metricInfos"]]
    assert tags == [f"hp/{key}" for key in board.NUMBERS]
    wanted = {"colParams": [{"hparam": n} for n in ("head", "head.steps")]}
    wanted["colParams"] += [{"metric": {"tag": "hp/uar", "group": ""}}]
    wanted |= {"allowedStatuses": ["STATUS_SUCCESS"], "startIndex": 0, "sliceSize": 10}
    rows = ask(address, "plugin/hparams/session_groups", wanted)["sessionGroups"]
    shown = {row["hparams"]["head"]: row for row in rows}
    for head in HEADS:
        values = {m["name"]["tag"]: m["value"] for m in shown[head]["metricValues"]}
        record = json.loads((suite / "cells" / head / "record.json").read_text())
        assert values["hp/uar"] == pytest.approx(record["metrics"]["uar"])
    assert shown["gen_ser"]["hparams"]["head.steps"] == 3
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_the_right_folder_is_found(suite: Path, tmp_path: Path) -> None:
    cells = suite / "cells"
    assert folder_of("two", str(suite.parent)) == folder_of("two.yaml", str(suite.parent)) == cells
    assert folder_of(str(suite)) == cells
    assert folder_of(str(cells / "gen_ser")) == cells / "gen_ser"
    with pytest.raises(ConfigError, match=says("nothing", "serzoo compare nothing")):
        folder_of("nothing", str(tmp_path))
    with pytest.raises(ConfigError, match=says(tmp_path, "events.out.tfevents.*")):
        folder_of(str(tmp_path))


def test_a_port_that_is_taken_is_told(suite: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=says("127.0.0.1", port, "--port")):
            serve(str(suite), host="127.0.0.1", port=port)
