"""Arguments of wrong types get a sentence of the documented class, and no traceback from inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edge_lstm
from edge_lstm import BackendError, Bundle, BundleError, EdgeLstmError, ExecutionOptions, Predictor
from tests.paths import PUMP


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (None, "None"),
        (5, "the int 5"),
        (b"pump.elstm", "an object of type bytes"),
        (Bundle, "the class Bundle"),
        ("pump\0.elstm", r'"pump\\u0000.elstm" with a null character'),
    ],
)
def test_what_is_no_path_is_a_bundle_error(wrong: Any, found: str) -> None:
    for call in (Predictor.from_bundle, Predictor.of, Bundle.open):
        with pytest.raises(BundleError, match=f"expected the path of a bundle, found {found}"):
            call(wrong)


@pytest.mark.parametrize(("wrong", "found"), [(None, "None"), ("text", "the str 'text'"), (Path("p"), "an object of")])
def test_what_are_no_bytes_is_a_bundle_error(wrong: Any, found: str) -> None:
    with pytest.raises(BundleError, match=f"the network: expected the bytes of a bundle, found {found}"):
        Bundle.from_bytes(wrong, "the network")


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"backend": ["numpy"]}, BackendError, "expected a backend of litert, .* found an object of type list"),
        ({"backend": "NumPy"}, BackendError, 'found "NumPy"\nhint: did you mean "numpy"'),
        ({"scheme": "int9"}, BundleError, r'pump-lstm\.elstm: expected a scheme of float32, int8, found "int9"'),
        ({"scheme": ["int8"]}, BundleError, "expected a scheme of float32, int8, found an object of type list"),
        ({"execution": None}, BackendError, "expected execution as ExecutionOptions, found None"),
        ({"execution": ExecutionOptions}, BackendError, "found the class ExecutionOptions"),
        ({"max_rewind": -1}, EdgeLstmError, "expected max_rewind as a whole number of 0 to 1000000, found the int -1"),
        ({"max_rewind": 2.5}, EdgeLstmError, "expected max_rewind as a whole number .* found the float 2.5"),
        ({"max_rewind": None}, EdgeLstmError, "expected max_rewind as a whole number .* found None"),
        ({"window": "3"}, EdgeLstmError, "expected window as a whole number .* found the str '3'"),
        ({"window": True}, EdgeLstmError, "expected window as a whole number .* found the bool True"),
        ({"window": 10**9}, EdgeLstmError, "expected window as a whole number .* found the int 1000000000"),
        ({"fetch": None}, EdgeLstmError, "expected fetch as a function .* found None"),
    ],
)
def test_an_option_of_a_predictor_gets_a_sentence(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        Predictor.from_bundle(PUMP, **{"backend": "numpy", "scheme": "float32", **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 0}, "expected threads as a whole number of 1 to 256, found the int 0"),
        ({"threads": "2"}, "expected threads as a whole number of 1 to 256, found the str '2'"),
        ({"threads": None}, "expected threads as a whole number of 1 to 256, found None"),
        (
            {"providers": "CPUExecutionProvider"},
            "expected providers as a tuple .* found the str 'CPUExecutionProvider'",
        ),
        ({"providers": ()}, "expected providers as a tuple of at least one name, found an empty one"),
        ({"providers": (1,)}, "expected providers as a tuple of at least one name, found the int 1"),
        ({"providers": None}, "expected providers as a tuple of at least one name, found None"),
    ],
)
def test_execution_options_are_checked_where_they_are_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BackendError, match=said):
        ExecutionOptions(**options)


def test_a_predictor_without_a_contract_names_the_way_to_open_a_bundle() -> None:
    wrong: Any = str(PUMP)
    with pytest.raises(EdgeLstmError, match=r"found the str .*\nhint: open a bundle with Predictor\.from_bundle"):
        Predictor(wrong, wrong)


def test_the_package_has_its_names_and_no_others() -> None:
    assert set(edge_lstm.__all__) <= set(dir(edge_lstm))
    with pytest.raises(AttributeError, match="module 'edge_lstm' has no attribute 'nonsense'"):
        edge_lstm.nonsense  # type: ignore[attr-defined]  # noqa: B018
    names: dict[str, Any] = {}
    exec("from edge_lstm import *", names)
    assert set(edge_lstm.__all__) <= names.keys()
