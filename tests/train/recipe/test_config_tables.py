"""The tables of keys in the documents are those of the code: recipes."""

from __future__ import annotations

import dataclasses

import pytest

from tests.config_tables import RECIPE, documents, outdated


@pytest.mark.parametrize("section", RECIPE)
def test_every_key_is_explained_in_exactly_one_document(section: type) -> None:
    assert [field.name for field in dataclasses.fields(section) if not field.metadata["doc"]] == []
    assert len(documents((section,))[section.__name__]) == 1


def test_the_tables_in_the_documents_are_those_of_the_code() -> None:
    assert outdated(RECIPE) == []  # else: make docs
