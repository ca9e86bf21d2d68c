"""Faults of the stress input are in the readings, and derived inputs show them as on a device."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.bundle.contract import Contract, Feature
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Reading
from edge_lstm_export.proof import stress as module
from edge_lstm_export.proof.stress import SEGMENTS, SEGMENTS_OF_INPUTS, stress
from edge_lstm_train.data.dataset import Dataset, read_dataset
from edge_lstm_train.data.feature_vectors import Samples, feature_vectors
from edge_lstm_train.recipe.recipe import read_recipe
from tests.export.test_meanings import FORECAST, RECIPE, write_mast
from tests.feature_vectors import Seen, contract
from tests.networks import contract_of, random_network

_, SCALED, SPIKED, CONSTANT, MISSING = SEGMENTS
STEPS = 500


@pytest.fixture(scope="module")
def mast(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A wind on a circle with a mask, a counter with a mean, and a door."""
    folder = tmp_path_factory.mktemp("mast")
    write_mast(folder)
    (folder / "mast.toml").write_text(RECIPE.format(task="forecast", interval=60, grid="", highway=0) + FORECAST)
    return read_dataset(read_recipe(folder / "mast.toml"))


def stressed(dataset: Dataset, steps: int = STEPS) -> dict[str, np.ndarray]:
    return stress(dataset.contract, dataset.features, dataset.samples, steps)


def test_without_a_fault_the_derived_inputs_are_those_of_the_recording(
    mast: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_scaled", lambda feature, values: values)
    segments = stressed(mast, len(mast))
    assert list(segments) == list(SEGMENTS)
    assert np.array_equal(segments[SEGMENTS[0]], mast.features)
    assert np.array_equal(segments[SCALED], mast.features)


def test_a_constant_reading_is_what_a_device_makes_of_constant_readings(mast: Dataset) -> None:
    contract = dataclasses.replace(mast.contract, states=contract_of(random_network()).states)
    backend = Seen(contract)
    predictor = Predictor(contract, backend)
    first = mast.recording.values[0]
    for row in range(STEPS):
        known = ~np.isnan(mast.recording.values[row])
        values = {name: float(first[at]) for at, name in enumerate(mast.recording.features) if known[at]}
        predictor.feed_columns([Reading("mast", float(mast.recording.times[row]), values)])
    np.testing.assert_array_equal(stressed(mast)[CONSTANT], np.array(backend.rows))
    energy = contract.inputs.index("energy")
    assert not backend.rows[1][energy]  # a meter that stands still counts nothing
    assert backend.rows[-1][contract.inputs.index("energy mean 5")] < 1e-6


def test_a_scaled_reading_is_scaled_in_its_mean_and_wraps_on_its_circle(mast: Dataset) -> None:
    inputs, (wind, energy, _) = mast.contract.inputs, mast.contract.features
    found = stressed(mast)[SCALED]
    np.testing.assert_allclose(found[:, 0] ** 2 + found[:, inputs.index("wind cos")] ** 2, 1, atol=1e-5)
    angle = np.degrees(np.arctan2(found[:, 0], found[:, inputs.index("wind cos")]))
    expected = wind.mean + 2 * (mast.samples.values[:STEPS, 0] - wind.mean) + wind.scale
    np.testing.assert_allclose((angle - expected + 180) % 360 - 180, 0, atol=0.01)
    increases = np.maximum(2 * mast.samples.values[:STEPS, 1] - energy.mean + energy.scale, 0)
    np.testing.assert_allclose(found[1:, 1], increases[1:], rtol=1e-4, atol=1e-4)
    mean = inputs.index("energy mean 5")
    assert found[50:, mean].mean() > 1.2 * mast.features[50:STEPS, mean].mean()


def test_spikes_show_in_the_mean_of_the_steps_after_them(mast: Dataset) -> None:
    mean = mast.contract.inputs.index("energy mean 5")
    found = stressed(mast)[SPIKED]
    spikes = np.flatnonzero(found[:, 1] != mast.features[:STEPS, 1])
    assert 1 <= len(spikes) <= 15
    moved = np.flatnonzero(found[:, mean] != mast.features[:STEPS, mean])
    assert set(spikes) | set(spikes + 1) <= set(moved) | {STEPS}


def test_a_missing_reading_is_held_and_its_mask_is_set(mast: Dataset) -> None:
    found = stressed(mast)[MISSING]
    mask = mast.contract.inputs.index("wind missing")
    assert 0.03 < found[:, mask].mean() < 0.3
    gaps = np.flatnonzero(np.diff(found[:, mask]) == 1)
    assert len(gaps) > 10
    assert (found[gaps + 1, 0] == found[gaps, 0]).all()


def test_the_first_reading_of_a_counter_after_lost_ones_has_what_it_counted_meanwhile() -> None:
    meter = contract(Feature("energy", mean=1, counter=True, mask=True))
    samples = sample_series(meter, np.ones((4 * STEPS, 1)))
    _, inputs = feature_vectors(meter, samples)
    increases, lost = stress(meter, inputs, samples, 4 * STEPS)[MISSING].T
    assert increases[lost == 1].tolist() == increases[np.flatnonzero(lost == 1) - 1].tolist()
    back = np.flatnonzero(np.diff(lost) == -1) + 1
    assert len(back) > 5
    for at in back:
        before = np.flatnonzero(lost[:at] == 0)[-1]
        assert increases[at] == at - before
    assert increases[lost == 0].sum() == np.flatnonzero(lost == 0)[-1] + 1


def sample_series(contract: Contract, values: np.ndarray) -> Samples:
    steps = len(values)
    times, since = 60.0 * np.arange(steps), np.full(steps, 60.0)
    missing, restart = np.zeros(values.shape, np.bool_), np.arange(steps) == 0
    return Samples(times, since, values.astype(np.float32), missing, restart)


def test_a_category_stays_one_of_its_texts() -> None:
    shaped = contract(Feature("level", derived=["difference"]), Feature("state", categories=["a", "b", "c"], mean=-1))
    values = np.stack([np.sin(np.arange(STEPS)), np.arange(STEPS) // 50 % 3], axis=1)
    samples = sample_series(shaped, values)
    _, inputs = feature_vectors(shaped, samples)
    for name, vectors in stress(shaped, inputs, samples, STEPS).items():
        assert set(np.unique(vectors[:, 1])) <= {0.0, 1.0, 2.0}, name
        assert (vectors[:, -3:].sum(axis=1) == 1).all(), name
        assert (vectors[np.arange(STEPS), -3 + vectors[:, 1].astype(int)] == 1).all(), name
    scaled = stress(shaped, inputs, samples, STEPS)[SCALED]
    assert (scaled[:, 1] == (values[:, 1] + 1) % 3).all()
    np.testing.assert_allclose(np.diff(scaled[:, 0]), scaled[1:, 2], atol=1e-6)


def test_a_reading_beyond_the_limits_of_its_feature_is_missing() -> None:
    limited = contract(Feature("level", mean=5, scale=1, least=0, most=8, mask=True, sentinels=[4]))
    values = 5 + 2 * np.sin(np.arange(STEPS) / 7)[:, None]
    samples = sample_series(limited, values)
    _, inputs = feature_vectors(limited, samples)
    scaled = stress(limited, inputs, samples, STEPS)[SCALED]
    expected = 2 * values[:, 0] - 5 + 1
    outside = (expected > 8) | (expected < 0)
    assert outside.mean() > 0.2
    assert (scaled[:, 1] == outside).all()
    assert scaled[:, 0].max() <= 8
    assert scaled[1:, 0].min() >= 0


def test_each_repetition_begins_like_a_stream_after_a_restart(mast: Dataset) -> None:
    short = dataclasses.replace(mast, samples=mast.samples.at(np.arange(120)), features=mast.features[:120])
    found = stressed(short, 300)[CONSTANT]
    assert np.array_equal(found[1:120], found[121:240])
    assert np.array_equal(found[240:], found[:60])


def test_a_run_without_readings_gets_its_faults_in_the_inputs_and_other_names(mast: Dataset) -> None:
    found = stress(mast.contract, mast.features, None, STEPS)
    assert list(found) == list(SEGMENTS_OF_INPUTS)
    derived = mast.contract.inputs.index("energy mean 5")
    assert np.array_equal(found["constant"][:, derived], mast.features[:STEPS, derived])


def test_the_samples_of_a_run_are_read_back_from_its_checkpoint(tmp_path: Path, mast: Dataset) -> None:
    from edge_lstm_train.model.checkpoint import load_checkpoint
    from edge_lstm_train.run import train

    recipe = read_recipe(Path(mast.recording.files[0]).with_name("mast.toml"))
    fit = dataclasses.replace(recipe.fit, updates=4)
    run = train(dataclasses.replace(recipe, fit=fit), tmp_path)
    samples = load_checkpoint(tmp_path).samples
    assert samples is not None
    for field in dataclasses.fields(Samples):
        np.testing.assert_array_equal(getattr(samples, field.name), getattr(run.checkpoint.samples, field.name))
    assert len(samples) == len(run.checkpoint.input_sequence)
    values = samples.values[:, mast.contract.inputs.index("energy")]
    np.testing.assert_array_equal(values, run.checkpoint.input_sequence[:, 1])
