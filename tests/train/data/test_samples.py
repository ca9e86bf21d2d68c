"""The samples of a recording are the same all at once and by the runtime's sampler, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_lstm.bundle.contract import Contract, Feature, Sampling, StateTensor
from edge_lstm.recordings.recording import Recording
from edge_lstm_train.data.samples import StreamSamples, all_at_once, by_sampler

NUMBERS = st.one_of(
    st.floats(-50, 50, width=32),
    st.sampled_from([float("nan"), -0.0, -999.0, -999.00001, 1e12, -1e12, 200.0, 3e38]),
)


def pump(max_gap_s: float | None, mean: float) -> Contract:
    features = [
        Feature("level", "m", mean, 2.0, sentinels=[-999.0]),
        Feature("flow", "l/s", mean, 3.0, least=-40.0, most=150.0),
    ]
    states = [StateTensor("h", [1, 4])]
    return Contract("pump", "forecast", features, ["level"], [1], states, sampling=Sampling(max_gap_s=max_gap_s))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), NUMBERS, NUMBERS), min_size=4, max_size=60),
    st.sampled_from([None, 3.0, 10.0]),
    st.sampled_from([float("nan"), 5.0]),
    st.booleans(),
)
def test_samples_all_at_once_are_those_of_the_sampler(
    rows: list[tuple[int, int, float, float]], max_gap_s: float | None, mean: float, one_after_the_other: bool
) -> None:
    rows = [(stream, 0, 1.0, 1.0) for stream in range(4)] + rows  # each stream has a row
    rows = sorted(rows, key=lambda row: row[0]) if one_after_the_other else rows
    stream_of, times, *values = map(np.array, zip(*rows, strict=True))
    names = ["a", "b", "c", "d"]
    table = np.stack(values, axis=1).astype(np.float64)
    recording = Recording("rows", ["level", "flow"], names, stream_of, times.astype(np.float64), table)
    contract = pump(max_gap_s, mean)
    (one, counts), (other, expected) = all_at_once(contract, recording), by_sampler(contract, recording)
    for name in StreamSamples.__dataclass_fields__:
        found, wanted = getattr(one, name), getattr(other, name)
        assert found.dtype == wanted.dtype, name
        assert found.tobytes() == wanted.tobytes(), name
    assert counts == expected
