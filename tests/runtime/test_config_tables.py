"""The tables of keys in the documents are those of the code: service.toml and boards."""

from __future__ import annotations

import dataclasses
import re
import sys

import pytest

from edge_lstm.foundation.config import from_mapping
from edge_lstm.hardware.boards import Budget
from edge_lstm.service.config import MqttConfig, ServiceConfig
from tests.config_tables import RUNTIME, documents, named, outdated, rewritten, table
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MEANINGS = ("doc", "refused")  # a key that is refused says why
BUDGET = """\
| key | type | unit | default | meaning |
|---|---|---|---|---|
| `step_p99_ms` | number ≥ 0 | ms | required | largest 99th percentile of the step time of one stream |
| `rss_mb` | number ≥ 0 | MB | required | largest memory of a process with one bundle loaded |
"""


@pytest.mark.parametrize("schema", RUNTIME)
def test_every_key_is_explained_in_exactly_one_document(schema: type) -> None:
    assert [field.name for field in dataclasses.fields(schema) if not any(map(field.metadata.get, MEANINGS))] == []
    assert len(documents((schema,))[schema.__name__]) == 1


def test_the_tables_in_the_documents_are_those_of_the_code() -> None:
    assert outdated(RUNTIME) == []  # else: make docs


@pytest.mark.parametrize(("document", "schema"), [("service", ServiceConfig), ("broker", MqttConfig)])
def test_the_example_above_a_table_is_read(document: str, schema: type) -> None:
    text = (ROOT / f"docs/{document}.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text.partition("<!-- keys")[0], re.DOTALL)
    found = tomllib.loads(example)
    assert isinstance(from_mapping(found["mqtt"] if schema is MqttConfig else found, schema, document), schema)


def test_a_table_names_type_unit_default_and_meaning_of_each_key() -> None:
    assert table(Budget) == BUDGET


def test_a_table_that_differs_from_the_code_is_replaced_and_nothing_else() -> None:
    text = "before\n<!-- keys: Budget -->\n| `rss_mb` | text |\n<!-- end -->\nafter\n"
    assert rewritten(text) == f"before\n<!-- keys: Budget -->\n{BUDGET}<!-- end -->\nafter\n"
    assert rewritten(rewritten(text)) == rewritten(text)


def test_a_mark_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="Budgets"):
        rewritten("<!-- keys: Budgets -->\n<!-- end -->\n")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (str | list[str], "text or list of texts"),
        (dict[str, list[str]], "table of lists of texts"),
        (dict[str, str | Budget], "table of texts or tables"),
        (list[Budget] | None, "list of tables"),
        (bool, "true or false"),
    ],
)
def test_a_type_is_named_in_words(kind: object, words: str) -> None:
    assert named(kind) == words


def test_the_bounds_follow_the_type() -> None:
    assert named(int, 1, 65_535) == "whole number from 1 to 65,535"
    assert named(list[float], 0.001, 0.999) == "list of numbers from 0.001 to 0.999"
    assert named(float, 1e-6) == "number ≥ 1e-6"
    assert named(int | None, None, 3) == "whole number ≤ 3"
