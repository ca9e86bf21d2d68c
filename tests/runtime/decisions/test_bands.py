"""Intervals about predictions, and quantiles in order."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.backends.reference import ReferenceBackend
from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.bundle.intervals import HOURS, SHARES, Intervals
from edge_lstm.decisions.forecasts.bands import Bands, in_order
from edge_lstm.messages.encoder import decode_prediction, encode_prediction
from edge_lstm.recordings.replay import predictions_csv
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from tests.networks import contract_of, random_network


def intervals(*widths: float, by_hour: list[float] | None = None) -> Intervals:
    return Intervals(0.9, list(widths), [0.0] * len(SHARES) * len(widths), by_hour or [])


def contract(outputs: int, **facts: object) -> Contract:
    network = random_network(inputs=1, outputs=outputs)
    return contract_of(network, **{"clock": [], "targets": ["level"], "horizons": [1, 24], **facts})


def bands(made: Contract, outputs: list[float], time: float = 0.0) -> list[list[float]]:
    found: list[list[float]] = Bands(made)(np.array([outputs], np.float32), np.array([time]))[0].tolist()
    return found


def test_an_interval_reaches_its_width_to_both_sides() -> None:
    assert bands(contract(2, intervals=intervals(1.0, 4.0)), [10.0, 20.0]) == [[9, 11], [16, 24]]


def test_quantiles_are_widened_or_narrowed_and_never_cross() -> None:
    made = contract(6, quantiles=[0.1, 0.9], intervals=intervals(0.5, -3.0))
    outputs = [10.0, 20.0, 8.0, 19.0, 13.0, 23.0]  # expected values, lower quantiles, upper quantiles
    assert bands(made, outputs) == [[7.5, 13.5], [21, 21]]  # 22 above 20: what is left is their middle


def test_an_interval_is_as_wide_as_its_hour_is_uncertain() -> None:
    by_hour = [1.0] * HOURS + [0.5] * HOURS
    by_hour[13] = 3.0
    made = contract(2, intervals=intervals(1.0, 4.0, by_hour=by_hour))
    assert bands(made, [10.0, 20.0], 12 * 3600 + 3599.0) == [[9, 11], [18, 22]]
    assert bands(made, [10.0, 20.0], 86_400 + 13 * 3600.0) == [[7, 13], [18, 22]]


def test_an_interval_on_a_circle_goes_around_it() -> None:
    network = random_network(inputs=2, outputs=2)
    wind = Feature("wind", scale=1.0, period=360.0)
    made = contract_of(network, features=[wind], targets=["wind"], clock=[], horizons=[1], intervals=intervals(30.0))
    assert bands(made, [350.0]) == [[320, 20]]
    wide = contract_of(network, features=[wind], targets=["wind"], clock=[], horizons=[1], intervals=intervals(200.0))
    assert bands(wide, [350.0]) == [[0, 360]]


def test_quantiles_are_published_in_order_whatever_the_network_says() -> None:
    made = contract(8, quantiles=[0.1, 0.5, 0.9])
    rows = np.array([[5, 6, 3, 1, 2, 2, 1, 3]], np.float32)
    # per name both horizons: expected 5 6; the three quantiles of step 1 are 3 2 1, those of step 24 are 1 2 3
    assert in_order(made, rows).tolist() == [[5, 6, 1, 1, 2, 2, 3, 3]]
    descending = contract(8, quantiles=[0.9, 0.5, 0.1])
    assert in_order(descending, rows).tolist() == [[5, 6, 3, 3, 2, 2, 1, 1]]


class Says(ReferenceBackend):
    """A backend that says the same row at each step; its states are the reference's."""

    def __init__(self, row: list[float]) -> None:
        super().__init__(random_network(inputs=1, outputs=len(row)))
        self.row = row

    def step(self, features: np.ndarray, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        _, following = super().step(features, states)
        return np.array([self.row] * len(features), np.float32), following


def test_bands_reach_subscribers_and_csv_in_every_format() -> None:
    made = contract(2, intervals=intervals(0.1, 4.0))
    predictor = Predictor(made, Says([10.0, 20.0]))
    (one,) = predictor.feed([Reading("s", 60.0, {"level": 1.0})])
    assert one.bands == {"level": {1: (9.9, 10.1), 24: (16.0, 24.0)}}
    text = encode_prediction(one, "b")
    assert json.loads(text)["bands"] == {"level": {"1": [9.9, 10.1], "24": [16.0, 24.0]}}
    assert decode_prediction(text)._replace(turned=one.turned) == one
    table = predictions_csv([one], made).splitlines()
    assert table[0].endswith("level+1,level+24,level+1_low,level+1_high,level+24_low,level+24_high")
    assert table[1].endswith(",10.0,20.0,9.9,10.1,16.0,24.0")


def test_the_bands_of_a_stream_do_not_depend_on_its_neighbours() -> None:
    made = contract(2, intervals=intervals(0.1, 4.0, by_hour=[1.5] * 2 * HOURS))
    alone, beside = Predictor(made, Says([10.0, 20.0])), Predictor(made, Says([10.0, 20.0]))
    readings = [Reading(f"s{place}", 3600.0 * place, {"level": 1.0}) for place in range(33)]
    every = beside.feed(readings)
    assert [one.bands for one in every] == [alone.feed([reading])[0].bands for reading in readings]


def test_a_bundle_keeps_its_intervals_and_an_older_reader_refuses_it(tmp_path: Path, make_bundle: object) -> None:
    made = contract(2, intervals=intervals(1.0, 4.0))
    written = make_bundle(tmp_path / "a.elstm", random_network(inputs=1, outputs=2), made)  # type: ignore[operator]
    assert Bundle.open(tmp_path / "a.elstm").contract == made
    assert json.loads(written.manifest_bytes)["format_version"] == 2
    plain = make_bundle(tmp_path / "b.elstm", random_network(inputs=1, outputs=2), contract(2))  # type: ignore[operator]
    facts = json.loads(plain.manifest_bytes)
    assert (facts["format_version"], "intervals" in facts["contract"]) == (1, False)


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (contract(2, intervals=intervals(1.0)), "expected 2 numbers, one for each target and horizon, found 1"),
        (contract(1, task="anomaly", horizons=[1], intervals=intervals(1.0)), "expected none for the task anomaly"),
    ],
)
def test_intervals_that_do_not_fit_the_outputs_are_refused(made: Contract, fault: str) -> None:
    assert fault in [message for _, message in made.faults()]


def test_the_lists_of_intervals_must_have_their_lengths() -> None:
    faults = dict(Intervals(0.9, [1.0, 2.0], [0.0], [1.0] * HOURS).faults())
    assert faults == {"scores": f"expected {2 * len(SHARES)} numbers, found 1"}
    scores = [0.0] * 2 * len(SHARES)
    (fault,) = Intervals(0.9, [1.0, 2.0], scores, [1.0] * HOURS).faults()
    assert fault == ("by_hour", "expected 48 numbers or none, found 24")


def test_a_prediction_that_is_not_finite_has_no_bounds_and_null_in_json() -> None:
    found = bands(contract(2, intervals=intervals(1.0, 4.0)), [math.nan, 20.0])
    assert math.isnan(found[0][0])
    assert math.isnan(found[0][1])
    assert found[1] == [16, 24]
