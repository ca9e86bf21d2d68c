"""The work that a message causes is bounded: the loop lives, other streams are served, and a kill loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_lstm import Bundle, Prediction, Predictor, Reading
from edge_lstm.bundle.contract import Sampling
from edge_lstm.mqtt.client.received import Message
from edge_lstm.recordings.replay import replay
from edge_lstm.service.database.history_reader import read_parts
from edge_lstm.service.processing import processor
from tests.hostile.costly_messages import (
    START,
    Link,
    Outcome,
    attacked,
    filling_list,
    late_list,
    message,
    opened,
    reading,
)
from tests.networks import contract_of, random_network

MOST_SILENT_STEPS = 10
MOST_GROWTH_MIB = 40.0
GRID = Sampling(interval_s=1.0, max_gap_s=10_000.0, grid=True)

Configured = Callable[..., Path]


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> int:
    """Slices of so many steps, so that small messages take several."""
    monkeypatch.setattr(processor, "MOST_STEPS", 200)
    return 200


@pytest.fixture
def configured(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Configured:
    """configured(extra="", sampling=None, clock=None): the path of a service config beside its bundle."""

    def make(extra: str = "", **changes: object) -> Path:
        network = random_network(inputs=3 if "clock" not in changes else 1)
        make_bundle(tmp_path / "tank.elstm", network, contract_of(network, **changes))
        config = tmp_path / "service.toml"
        config.write_text(f'bundle = "tank.elstm"\nbackend = "numpy"\n{extra}\nmqtt.url = "mqtt://attack"\n')
        return config

    return make


def honest(first: int, count: int) -> list[Message]:
    """Messages of five devices."""
    return [message(first + n, f"sensors/honest-{n % 5}", reading(60 * (n // 5), n % 3)) for n in range(count)]


def last(predictions: list[Prediction]) -> dict[tuple[str, float], tuple[object, ...]]:
    """By stream and time, the prediction with the highest revision."""
    known: dict[tuple[str, float], tuple[object, ...]] = {}
    for one in predictions:
        former = known.get((one.stream, one.time))
        if former is None or former[-1] < one.revision:  # type: ignore[operator]
            known[one.stream, one.time] = one.step, one.warm_steps, one.values, one.revision
    return known


def alone(config: Path, messages: list[Message], **rules: int) -> dict[tuple[str, float], tuple[object, ...]]:
    """`last` of a predictor that gets one reading after another."""
    predictor = Predictor.of(Bundle.open(config.parent / "tank.elstm"), "numpy", max_rewind=8, **rules)
    found: list[Prediction] = []
    for one in messages:
        facts = json.loads(one.payload)
        for each in facts if isinstance(facts, list) else [facts]:
            found += predictor.predict(Reading(one.topic.partition("/")[2], each["time"], {"level": each["level"]}))
    return last(found)


def is_bounded(found: Outcome) -> None:
    assert found.silent_steps <= MOST_SILENT_STEPS
    assert found.growth_mib < MOST_GROWTH_MIB


def test_lists_of_late_readings_leave_the_loop_alive_and_others_served(
    configured: Configured, small_slices: int
) -> None:
    """Two lists of 252 KB kept the loop from its watchdog for 53 s; here they have 16 KB each, and slices are short."""
    config = configured()
    lists = [message(number, f"sensors/attacker-{number}", late_list(16_000, 8)) for number in (1, 2)]
    messages = [*lists, *honest(3, 50)]
    found = attacked(config, messages)
    is_bounded(found)
    assert found.totals["rewound"] > 800
    assert found.totals["late"] == 0
    assert found.totals["samples"] < 5 * found.totals["used"]
    assert found.acknowledged == list(range(1, 53))
    assert last(found.predictions) == alone(config, messages)
    order = [one.stream for one in found.predictions]
    before = order[: len(order) - order[::-1].index("honest-4")]
    assert len(before) < 5 * small_slices < len(order) / 2, "the devices do not wait for the attacker's readings"


def test_a_list_with_a_long_rewind_is_bounded_in_steps_and_memory(configured: Configured) -> None:
    """With max_rewind = 200 a list of 252 KB took 200 s and 1.4 GB; here it has 40 KB."""
    config = configured("max_rewind = 200")
    messages = [message(1, "sensors/attacker", late_list(40_000, 200)), *honest(2, 50)]
    found = attacked(config, messages)
    is_bounded(found)
    assert found.totals["rewound"] > 400
    assert found.totals["samples"] < 8 * found.totals["used"]
    assert found.acknowledged == list(range(1, 52))


def test_a_short_list_on_a_grid_fills_it_slice_by_slice(configured: Configured) -> None:
    """581 bytes made 190,103 predictions and took 375 MB; here they make 6,000."""
    config = configured(sampling=GRID)
    messages = [message(1, "sensors/attacker", filling_list(4, 2000)), *honest(2, 20)]
    assert len(messages[0].payload) < 200
    found = attacked(config, messages, keep=False)
    is_bounded(found)
    assert found.totals["predictions"] == 6000 + 5 * 3 * 60
    assert found.acknowledged == list(range(1, 22))


def test_a_reading_that_fills_too_much_is_dropped_counted_and_reported_once(configured: Configured) -> None:
    config = configured("max_steps_per_reading = 100", sampling=GRID)
    messages = [
        message(1, "sensors/a", [reading(0), reading(100), reading(5000), reading(200)]),
        message(2, "sensors/a", [reading(301), reading(299)]),
        *honest(3, 10),
    ]
    found = attacked(config, messages)
    assert (found.totals["costly"], found.totals["predictions"]) == (2, 100 + 100 + 99 + 5 * 60)
    (report,) = found.reports
    assert (report["stream"], report["costly"]) == ("a", 2)
    expected = "reading dropped: it would end 101 intervals of the grid, more than max_steps_per_reading=100"
    assert report["error"] == expected
    (part,) = read_parts(config.parent / "state.db", Bundle.open(config.parent / "tank.elstm").id)
    assert part.rules is not None
    assert part.rules.max_steps == 100
    again = Predictor.of(Bundle.open(config.parent / "tank.elstm"), "numpy", **part.rules._asdict())
    said = list(replay(again, part.readings, part.batches))
    assert sorted(said) == sorted(found.predictions)
    assert again.totals["costly"] == 2


def test_a_replay_of_the_history_gives_the_very_predictions_of_the_slices(
    configured: Configured, small_slices: int
) -> None:
    config = configured("history = 100_000")
    messages = [message(1, "sensors/attacker", late_list(12_000, 8)), *honest(2, 30)]
    found = attacked(config, messages)
    bundle = Bundle.open(config.parent / "tank.elstm")
    for stream in (None, "attacker"):
        (part,) = read_parts(config.parent / "state.db", bundle.id, stream)
        assert part.rules is not None
        again = Predictor.of(bundle, "numpy", **part.rules._asdict())
        said = list(replay(again, part.readings, part.batches))
        assert sorted(said) == sorted(one for one in found.predictions if stream in (None, one.stream))


def test_a_slice_that_is_stopped_leaves_the_states_of_the_last_commit(configured: Configured) -> None:
    config = configured(sampling=GRID)
    link = Link([message(1, "sensors/a", [reading(0)]), message(2, "sensors/a", [reading(2_000)])])
    service = opened(config, link)
    service._process(link.poll(0)[:1])
    stored = service._store.row("a")
    between = 0

    def stop_soon() -> None:
        nonlocal between
        between += 1
        if between == 100:
            service.stop()

    service._manager.alive = stop_soon  # type: ignore[method-assign]
    service._process([message(2, "sensors/a", [reading(2_000)])])
    assert between == 100
    assert "a" not in service._predictor.table.names
    assert (service._store.row("a"), link.acknowledged) == (stored, [1])
    service._finish()


def test_a_message_without_times_goes_on_after_a_kill_between_its_slices(
    configured: Configured, small_slices: int
) -> None:
    """Nothing in such a message shows which of its readings were stepped: only its identity and its next item do."""
    config = configured('input.time_from = "arrival"', clock=[], sampling=Sampling())
    count = 3 * small_slices + 100
    values = [round(1 + number % 11 / 7, 4) for number in range(count)]
    payload = [{"level": value} for value in values]
    first = opened(config, link := Link([]))
    first._process([message(1, "sensors/a", payload)])
    first._deliver(first._processor.go_on())
    assert link.acknowledged == []
    first._store._database.close()  # as the kernel does for a dead process
    second = opened(config, link := Link([message(1, "sensors/a", payload, repeated=True)]))
    second.run()
    assert link.acknowledged == [1]
    found = [json.loads(one) for one in link.published]  # the first ones again: the broker has confirmed none of them
    assert [one["step"] for one in found] == list(range(1, count + 1))
    predictor = Predictor.of(Bundle.open(config.parent / "tank.elstm"), "numpy")
    expected = predictor.feed([Reading("a", START + number, {"level": one}) for number, one in enumerate(values)])
    assert [one["predictions"]["level"]["1"] for one in found] == [
        pytest.approx(one.values["level"][1], rel=1e-6) for one in expected
    ]
