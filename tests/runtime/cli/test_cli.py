"""The command line: output, exit codes, and no traceback for an error of the user."""

from __future__ import annotations

import csv
import gc
import importlib.util
import json
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_lstm import Bundle, Predictor, Reading
from edge_lstm.bundle.contract import Feature, Sampling
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.messages.encoder import encode_prediction
from edge_lstm.mqtt.embedded_broker import EmbeddedBroker
from edge_lstm.service.database.spans import SteppingRules
from edge_lstm.service.database.store import Store
from edge_lstm.service.runner import _freeze_garbage_collector
from edge_lstm.streaming.stream_table import StreamTable
from tests.networks import contract_of, random_network


def edge_lstm(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command, as a user would; stdout and stderr apart."""
    command = [sys.executable, "-m", "edge_lstm", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "tank-1.csv"
    rows = "".join(f"{1_700_000_000 + 60 * step},{step % 7}\n" for step in range(50))
    path.write_text(f"time,level\n{rows}")
    return path


def test_a_refused_service_leaves_garbage_collection_enabled(tmp_path: Path) -> None:
    script = (
        "import gc, sys; from edge_lstm.cli.main import main\n"
        "try: main(['run', sys.argv[1]])\n"
        "except SystemExit as end: print(end.code, gc.isenabled())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "none.toml")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1 True\n"


def test_help_lists_the_commands_in_the_order_of_use() -> None:
    lines = edge_lstm("--help").stdout.splitlines()
    verbs = [line.split()[0] for line in lines[lines.index("Commands:") + 1 :]]
    assert verbs == [
        "demo",
        "init",
        "discover",
        "record",
        "train",
        "tune",
        "export",
        "adopt",
        "keys",
        "sign",
        "inspect",
        "verify",
        "bench",
        "replay",
        "simulate",
        "doctor",
        "run",
        "status",
        "feedback",
        "streams",
        "history",
        "device",
        "broker",
    ]


@pytest.mark.parametrize("arguments", [("train", "solar"), ("export", "runs/solar"), ("demo",)])
@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
def test_train_without_torch_names_the_extra_to_install(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = edge_lstm(*arguments, code=1)
    assert done.stderr.startswith("error: torch is not installed here\nhint: run pip install 'edge-lstm[train")
    assert done.stdout == ""


def test_inspect_says_what_is_a_circle_and_what_counts(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    features = [Feature("wind", "degree", period=360.0), Feature("energy", "kWh", counter=True)]
    contract = contract_of(random_network(), features=features, targets=["energy"], clock=[])
    make_bundle(tmp_path / "mast.elstm", random_network(inputs=3), contract)
    shown = edge_lstm("inspect", tmp_path / "mast.elstm").stdout
    assert "as        wind: on a circle of 360, energy: the reading of a counter\n" in shown


def test_inspect_shows_a_data_sheet_or_json(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    sheet = edge_lstm("inspect", bundle_path).stdout
    assert f"tank, id {bundle.id}" in sheet
    assert "level (m)" in sheet
    assert "LSTM, 1 x 8 units, 434 parameters" in sheet
    facts = json.loads(edge_lstm("inspect", bundle_path, "--json").stdout)
    assert facts["contract"]["horizons"] == [1, 5]
    assert facts["state_bytes_per_stream"] == 64


def test_verify_names_the_first_step_where_a_bad_bundle_differs(bundle_path: Path) -> None:
    assert edge_lstm("verify", bundle_path).stdout.startswith("ok     numpy          float32  parity")
    verdicts = json.loads(edge_lstm("verify", bundle_path, "--json", "--backend", "numpy").stdout)
    assert [(one["backend"], one["passed"], one["smallest_batch"]) for one in verdicts] == [("numpy", True, 1)]


def test_replay_prints_the_predictions_as_the_service_publishes_them(
    bundle_path: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.csv"
    done = edge_lstm("replay", bundle_path, recording, "-o", out, "--json")
    published = [json.loads(line) for line in done.stdout.splitlines()]
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(published) == len(rows) == 50
    assert [row["step"] for row in rows] == [str(one["step"]) for one in published]
    assert [float(row["level+5"]) for row in rows] == [one["predictions"]["level"]["5"] for one in published]
    assert "50 readings of 1 stream, 50 predictions" in done.stderr
    assert edge_lstm("replay", bundle_path, recording).stdout.startswith("50 readings of 1 stream, 50 predictions")


def test_replay_refuses_times_of_an_unknown_unit_until_it_is_said(
    bundle_path: Path, recording: Path, tmp_path: Path
) -> None:
    lines = recording.read_text().splitlines()
    names, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    at = names.index("time")
    for number, row in enumerate(rows):
        row[at] = str(60_000 + 30_000 * number)  # milliseconds since a device was switched on
    path = tmp_path / "millis.csv"
    path.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    refused = edge_lstm("replay", bundle_path, path, code=1)
    assert "as milliseconds since any start, they are 30 s apart" in refused.stderr
    done = edge_lstm("replay", bundle_path, path, "--time-unit", "ms", "--time-start", "2024-03-01", "--json")
    times = [json.loads(line)["time"] for line in done.stdout.splitlines()[:2]]
    assert times == ["2024-03-01T00:01:00Z", "2024-03-01T00:01:30Z"]


def test_the_history_of_a_device_is_replayed_with_its_service_rules(bundle_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    order = [(0, "1"), (1, "2"), (4, "3"), (2, "4"), (1, "2"), (3, "5"), (6, "6")]  # two late, one repeated
    readings = [Reading("tank", 1_700_000_000.0 + 60 * step, {"level": 1.5 * step}, number) for step, number in order]
    told = {}
    for rules in (SteppingRules(0, 0), SteppingRules(8, 256)):
        path = tmp_path / f"{rules.max_rewind}-{rules.window}.db"
        store = Store(path, bundle.id, StreamTable(bundle.contract).layout, 100, rules=rules)
        store.commit(1, [], [], 0, [], 0, readings)
        store.close(1)
        told[rules] = edge_lstm("replay", bundle_path, "--history", path, "--json").stdout.splitlines()
        expected = Predictor.of(bundle, "numpy", **rules._asdict()).feed(readings)
        assert told[rules] == [encode_prediction(one, bundle.id) for one in expected]
    assert [len(lines) for lines in told.values()] == [4, 7]  # both late ones share a rewind


def test_the_bands_of_a_history_are_replayed_as_the_device_adapted_them(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    network = random_network()
    intervals = Intervals(0.9, [1.0, 2.0], [share * width for width in (1.1, 2.2) for share in SHARES])
    bundle = make_bundle(tmp_path / "tank.elstm", network, contract_of(network, intervals=intervals))
    levels = [9.0 * (-1) ** step for step in range(20)]
    readings = [Reading("tank", 1_700_000_000.0 + 60 * step, {"level": level}) for step, level in enumerate(levels)]
    store = Store(tmp_path / "state.db", bundle.id, StreamTable(bundle.contract).layout, 100)
    store.commit(1, [], [], 0, [], 0, readings)
    store.close(1)
    shown = edge_lstm("replay", tmp_path / "tank.elstm", "--history", tmp_path / "state.db", "--json").stdout
    expected = Predictor.of(bundle, "numpy").feed(readings)
    assert shown.splitlines() == [encode_prediction(one, bundle.id) for one in expected]
    widths = [high - low for low, high in (one.bands["level"][1] for one in expected if one.bands)]
    assert widths[-1] > 1.1 * widths[0]


def test_one_stream_of_the_history_is_replayed(bundle_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    readings = [Reading(f"tank-{step % 2}", 1_700_000_000.0 + 60 * step, {"level": 1.5}) for step in range(9)]
    store = Store(tmp_path / "state.db", bundle.id, StreamTable(bundle.contract).layout, 100)
    store.commit(1, [], [], 0, [], 0, readings)
    store.close(1)
    found = edge_lstm("replay", bundle_path, "--history", tmp_path / "state.db", "--stream", "tank-1", "--json").stdout
    expected = Predictor.of(bundle, "numpy").feed(readings[1::2])
    assert found.splitlines() == [encode_prediction(one, bundle.id) for one in expected]
    done = edge_lstm("replay", bundle_path, "--history", tmp_path / "state.db", "--stream", "tank-2", code=1)
    assert "expected readings of the stream tank-2" in done.stderr


def test_a_replay_shows_a_stream_before_its_first_step(
    make_bundle: Callable[..., Bundle], recording: Path, tmp_path: Path
) -> None:
    network = random_network()
    contract = contract_of(network, sampling=Sampling(60.0, 600.0, grid=True))
    make_bundle(tmp_path / "grid.elstm", network, contract)
    done = edge_lstm("replay", tmp_path / "grid.elstm", recording, "--at", "1700000000")
    (state,) = json.loads(done.stdout).values()
    assert (state["time"], state["step"], state["warm_steps"]) == (None, 0, 0)  # its first interval is still open


def test_simulate_publishes_every_row_at_the_given_speed(recording: Path) -> None:
    with EmbeddedBroker() as broker:
        done = edge_lstm("simulate", recording, "--to", broker.address, "--speed", "max")
        assert done.stdout == f"50 readings of 1 stream published to {broker.address}\n"


def test_the_broker_command_listens_and_ends_on_sigterm() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_lstm", "broker", "--port", str(port)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert f"MQTT 5 at mqtt://127.0.0.1:{port}" in process.stderr.readline()
    edge_lstm("broker", "--port", port, code=1)
    process.terminate()
    assert process.wait(60) == 0
    process.stderr.close()


def mistakes(bundle: Path, recording: Path, folder: Path) -> list[tuple[tuple[object, ...], int, str]]:
    """(arguments, exit code, what the message says)."""
    truncated = folder / "truncated.elstm"
    truncated.write_bytes(bundle.read_bytes()[:-700])
    flipped = folder / "flipped.elstm"
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    empty = folder / "empty.csv"
    empty.write_text("")
    config = folder / "service.toml"
    config.write_text('bundel = "x"\nbackend = "onxx"\n[mqtt]\nurl = "http://x"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        (("inspect", folder / "none.elstm"), 1, "expected a bundle at"),
        (("inspect", truncated), 1, "expected a whole bundle, found"),
        (("verify", flipped), 1, "expected a whole bundle, found"),
        (("inspect", recording), 1, "expected a whole bundle, found a file that is no zip file"),
        (("verify", bundle, "--backend", "onyx"), 2, "'onyx' is not one of"),
        (("verify", bundle, "--scheme", "int9"), 1, "expected a scheme of float32, found int9"),
        (("replay", bundle, recording, "--backend", "onnx"), 1, "expected a variant onnx float32, found numpy float32"),
        (("replay", bundle, empty), 1, "expected a header row and rows of readings, found nothing"),
        (("replay", bundle, recording, "--column", "level=depth"), 1, 'expected a column "depth", found time, level'),
        (("replay", bundle, recording, "--column", "depth"), 2, "expected FEATURE=COLUMN with a feature of level"),
        (("replay", bundle, recording, "-o", folder / "no" / "x.csv"), 1, "expected a folder that can be written at"),
        (("simulate", recording, "--to", f"mqtt://127.0.0.1:{port}"), 1, "found: Connection refused"),
        (("simulate", recording, "--to", "localhost"), 1, "expected an address like mqtt://host:1883"),
        (("simulate", recording, "--to", "mqtt://h", "--speed", "-1"), 2, "expected a number over 0, or max"),
        (("run", config), 1, '3 faults:\n  bundel: unknown key; did you mean "bundle"?'),
        (("run", folder / "none.toml"), 1, "expected a file at"),
    ]


def test_an_error_is_one_message_with_a_hint_and_no_traceback(
    bundle_path: Path, recording: Path, tmp_path: Path
) -> None:
    for arguments, code, message in mistakes(bundle_path, recording, tmp_path):
        done = edge_lstm(*arguments, code=code)
        assert message in done.stderr, (arguments, done.stderr)
        assert done.stdout == ""
        if code == 1:
            assert done.stderr.startswith("error: ")
            assert "\nhint: " in done.stderr


def test_a_reload_collects_the_garbage_of_the_former_service() -> None:
    class Former:
        itself: object = None

    former = Former()
    former.itself = former
    left = weakref.ref(former)
    try:
        _freeze_garbage_collector()
        assert gc.get_freeze_count() > 10_000
        del former
        gc.collect()
        assert left() is not None  # frozen
        _freeze_garbage_collector()
        assert left() is None
    finally:
        gc.unfreeze()
