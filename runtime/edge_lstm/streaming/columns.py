"""The columns of the stream table: name, type, shape, start value, and whether a stored row has them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import numpy as np

from edge_lstm.bundle.contract import Contract
from edge_lstm.decisions.decider import calibration_shape, newer_fields
from edge_lstm.decisions.decider import record_fields as decision_fields
from edge_lstm.decisions.decider import start_values as decision_starts
from edge_lstm.decisions.rules import DecisionRules
from edge_lstm.decisions.sensors.sensor_watch import watched
from edge_lstm.foundation.arrays import Records
from edge_lstm.streaming.features import record_fields as feature_fields
from edge_lstm.streaming.sampling import counters

# always: each row has the column; trail: if the table has a depth; window: if the table has a window;
# residuals: at the end of the row, and only the entries that are still needed; never: it is not stored
Stored = Literal["always", "trail", "window", "residuals", "never"]


_NO_RULES = DecisionRules()


class Column(NamedTuple):
    """One array of the stream table, (slots, *shape) of `dtype`.

    A stored row of another layout is read by the names of columns and fields: a renamed one would get its start value.
    """

    name: str  # of the table's attribute
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()  # of one stream
    start: Any = None  # of a new stream; None: the old content stays, and nothing reads it before it is written
    stored: Stored = "always"
    former_dtype: np.dtype[Any] | None = None  # in rows of release 0.1.0, where it differs
    is_new: bool = False  # whether rows of release 0.1.0 lack the column

    @property
    def bytes(self) -> int:
        """Of one stream."""
        return self.dtype.itemsize * int(np.prod(self.shape))


def columns_of(contract: Contract, depth: int, window: int, rules: DecisionRules = _NO_RULES) -> list[Column]:
    """All columns of a table. A row has the stored ones in this order."""
    features, outputs, grid = len(contract.features), len(contract.outputs), contract.sampling.grid
    float32, int64, uint64 = np.dtype("f4"), np.dtype("i8"), np.dtype("u8")
    first = first_record(contract, rules)
    record = first.dtype
    former_record = _without(record, newer_fields(contract, rules))
    alarming = contract.alarm is not None
    announced = np.dtype([("since", "f8"), ("band", "i8")])
    interval = open_interval(contract)
    given = counters.value_type(contract)
    read = np.dtype("f8") if counters.counter_columns(contract) else float32
    sample = np.dtype([*_sample_fields(features, given), ("revision", "u8")])
    former_sample = np.dtype([*_sample_fields(features, float32), ("revision", "u2")])
    return [
        Column("current", record, start=first[0], former_dtype=former_record),
        Column("partial_values", read, (features,), start=np.nan),
        Column("partial_times", np.dtype("f8"), (features,), start=np.nan, is_new=True),
        Column("last_published", float32, (outputs,), start=np.nan),
        Column(
            "open_interval", interval.dtype, start=interval[0] if grid else None, stored="always" if grid else "never"
        ),
        Column(
            "announced",
            announced,
            start=np.zeros((), announced) if alarming else None,
            stored="always" if alarming else "never",
            is_new=True,
        ),
        Column(
            "reported_faults",
            np.dtype("u1"),
            (features,),
            start=0 if watched(contract, rules) else None,
            stored="always" if watched(contract, rules) else "never",
            is_new=True,
        ),
        Column("trail_length", int64, start=0, stored="trail"),
        Column("trail", sample, (2 * depth,), stored="trail", former_dtype=former_sample),
        Column("snapshot_old", record, stored="trail", former_dtype=former_record),
        Column("snapshot_mid", record, stored="trail", former_dtype=former_record),
        Column("seen", uint64, (window,), start=0, stored="window"),
        Column("identities", int64, start=0, stored="window", is_new=True),
        Column("last_number", int64, start=-1, stored="window", is_new=True),
        Column("calibration", float32, calibration_shape(contract), stored="residuals"),
        Column("used", int64, stored="never"),
    ]


def open_interval(contract: Contract) -> Records:
    """The open interval of a stream's grid before its first reading; without a grid it takes no memory. (1,)"""
    features = len(contract.features)
    fields: list[Any] = [
        ("interval", "f8"),
        ("newest", "f8"),
        ("value", "f8", (features,)),
        ("count", "u4", (features,)),
    ]
    circles = sum(feature.period is not None for feature in contract.features)
    counted = len(counters.counter_columns(contract))
    fields += [("cosine", "f8", (circles,))] if circles else []
    fields += [("counted", "f8", (counted, counters.MEMORY))] if counted else []
    first = np.zeros(1, fields if contract.sampling.grid else [])
    if contract.sampling.grid:
        first["interval"] = first["newest"] = np.nan
        if counted:
            first["counted"] = counters.START
    return first


def first_record(contract: Contract, rules: DecisionRules = _NO_RULES) -> Records:
    """The record of a stream before its first step. (1,)

    `time` of the last sample (seconds since 1970, NaN before the first), `step` and `warm_steps` (counts), `held` (the
    last value of each feature), `state0`, `state1`, … (the contract's tensors), then derived inputs, decisions and
    counters.
    """
    tensors: list[Any] = [(f"state{index}", "f4", tuple(state.shape)) for index, state in enumerate(contract.states)]
    fields: list[Any] = [
        ("time", "f8"),
        ("step", "i8"),
        ("warm_steps", "i8"),
        ("held", "f4", (len(contract.features),)),
    ]
    counted = (
        0 if contract.sampling.grid else len(counters.counter_columns(contract))
    )  # a grid has it in the open interval
    memory = [("counted", "f8", (counted, counters.MEMORY))] if counted else []
    record = np.zeros(1, [*fields, *tensors, *feature_fields(contract), *decision_fields(contract, rules), *memory])
    if counted:
        record["counted"] = counters.START
    record["time"] = np.nan
    record["held"] = [feature.mean for feature in contract.features]
    for name, start in decision_starts(contract, rules).items():
        record[name] = start
    for index, state in enumerate(contract.states):
        record[f"state{index}"] = state.initial
    return record


def _without(record: np.dtype[Any], names: Collection[str]) -> np.dtype[Any]:
    """The record without these fields."""
    assert record.names is not None
    kept: list[Any] = [(name, record[name].base, record[name].shape) for name in record.names if name not in names]
    return np.dtype(kept)


def _sample_fields(features: int, given: np.dtype[Any]) -> list[Any]:
    return [("time", "f8"), ("id", "u8"), ("given", given, (features,))]
