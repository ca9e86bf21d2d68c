"""Bands of a device beside those of MAPIE, a library of conformal prediction, on the same forecasts."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.bundle.contract import Feature
from edge_lstm.bundle.intervals import SHARES, Intervals
from edge_lstm.decisions.forecasts.adaptation import AdaptiveBands
from edge_lstm.decisions.step import Step
from edge_lstm.streaming.columns import first_record
from edge_lstm_train.evaluation.intervals import conformal_quantile
from tests.networks import contract_of, random_network

LEVEL = 0.9
RATE = 0.01  # of MAPIE
CALIBRATED = 1000


def series() -> np.ndarray:
    """Noise that doubles and halves: the forecast of each step is 0."""
    spreads = np.repeat([1.0, 2.0, 0.7], [CALIBRATED + 500, 1000, 1000])
    values: np.ndarray = np.random.default_rng(6).normal(0, spreads)
    return values


def of_device(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(steps - 1,): half the width of each band, one step ahead."""
    made = Intervals(LEVEL, [conformal_quantile(scores, LEVEL)], [conformal_quantile(scores, one) for one in SHARES])
    network = random_network(inputs=1, outputs=1)
    contract = contract_of(network, features=[Feature("level")], clock=[], horizons=[1], intervals=made)
    bands, current, slots = AdaptiveBands(contract), first_record(contract), np.array([0])
    nothing, known, learns = np.zeros((1, 0, 0), np.float32), np.zeros((1, 1), bool), np.ones(1, bool)
    forecast, found = np.zeros((1, 1), np.float32), []
    for value in values[:-1].astype(np.float32):
        current["step"] += 1
        current["warm_steps"] += 1
        found.append(bands(Step(current, nothing, slots, value.reshape(1, 1), known, forecast, learns), forecast))
    widths: np.ndarray = np.array(found)[:, 0, 0, 1]
    return widths


def of_mapie(calibrated: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(steps - 1,): the same by adaptive conformal inference of MAPIE."""
    from mapie.regression import TimeSeriesRegressor
    from sklearn.dummy import DummyRegressor

    always_0 = DummyRegressor(strategy="constant", constant=0.0).fit(np.zeros((1, 1)), np.zeros(1))
    model = TimeSeriesRegressor(always_0, method="aci", cv="prefit")
    model.fit(np.zeros((len(calibrated), 1)), calibrated)
    here, found = np.zeros((1, 1)), []
    for value in values[1:]:
        _, bounds = model.predict(here, confidence_level=LEVEL, allow_infinite_bounds=True)
        found.append(bounds[0, 1, 0])
        model.adapt_conformal_inference(here, np.array([value]), gamma=RATE, confidence_level=LEVEL)
    return np.array(found)


@pytest.mark.filterwarnings("ignore")  # of scikit-learn
def test_bands_of_a_device_hold_no_worse_than_those_of_mapie_and_are_never_infinite() -> None:
    pytest.importorskip("mapie", reason="the bands of MAPIE are compared where it is installed")
    values = series()
    calibrated, lived = values[:CALIBRATED], values[CALIBRATED:]
    ours, theirs = of_device(np.abs(calibrated), lived), of_mapie(calibrated, lived)
    truth = np.abs(lived[1:])
    held = [float((truth <= widths).mean()) for widths in (ours, theirs)]
    assert held[0] == pytest.approx(LEVEL, abs=0.01)
    assert abs(held[0] - LEVEL) <= abs(held[1] - LEVEL) + 0.005
    worst = [np.abs((truth <= one)[:2000].reshape(-1, 500).mean(axis=1) - LEVEL).max() for one in (ours, theirs)]
    assert worst[0] <= worst[1] + 0.01
    assert np.isinf(theirs).sum() > 100  # while the noise has doubled
    assert np.isfinite(ours).all()
    assert ours.mean() <= 1.05 * np.quantile(truth, held[0])  # of the best band of one width that holds as often
