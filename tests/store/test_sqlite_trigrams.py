"""Trigrams are those of the string values in use, and `:contains` finds by them (https://hl7.org/fhir/R4/search.html#string)."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from fhir_server.search.entries import Entries
from fhir_server.search.query import Contains, Not, Query, Scope
from fhir_server.store.contract.case import delete, ids, purge, put, string, terms, token, write
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.sqlite import SqliteStore, expand
from tests.store.sqlite_runs import run_on_store


def write_named(id: str, *names: str) -> Write:
    entries = terms(name=tuple(map(string, names)), code=[token("code", "urn:code")])
    return put(f"Patient/{id}", replace(entries, strings=frozenset({"name", "family"})))


def read_grams(path: Path) -> set[str]:
    """The trigrams in the file."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        grams = {gram for (gram,) in connection.execute("SELECT gram FROM gram")}
    connection.close()
    return grams


def contain(text: str) -> Contains:
    return Contains("name", text, strings=True)


def test_each_three_characters_of_a_string_are_kept_and_none_of_a_token(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await write(store, write_named("1", "Lovelace", "Bo"))
        assert read_grams(path) == {"lov", "ove", "vel", "ela", "lac", "ace"}

    run_on_store(path, test)


def test_a_value_is_kept_as_long_as_some_resource_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await store.transact(Transaction((write_named("1", "Anna"), write_named("2", "Anna", "Hanna"))))
        assert read_grams(path) == {"ann", "nna", "han"}
        await write(store, write_named("1", "Cleo"))
        assert read_grams(path) == {"ann", "nna", "han", "cle", "leo"}
        assert await ids(store, "Patient", contain("nna")) == ["2"]
        await write(store, write_named("2", "Hanna"))
        assert await ids(store, "Patient", contain("ann")) == ["2"]
        await write(store, delete("Patient/2"))
        assert read_grams(path) == {"cle", "leo"}
        assert await ids(store, "Patient", contain("ann")) == []

    run_on_store(path, test)


def test_a_value_that_moves_from_one_resource_to_another_at_once_is_still_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await store.transact(Transaction((write_named("1", "Anna"), write_named("2", "Cleo"))))
        await store.transact(Transaction((write_named("1", "Cleo"), write_named("2", "Anna"))))
        assert read_grams(path) == {"ann", "nna", "cle", "leo"}
        assert await ids(store, "Patient", contain("ann")) == ["2"]
        assert await ids(store, "Patient", contain("leo")) == ["1"]

    run_on_store(path, test)


def test_nothing_of_what_was_purged_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await write(store, write_named("1", "Lovelace"))
        await purge(store, "Patient/1")
        assert read_grams(path) == set()

    run_on_store(path, test)


def test_reindexing_makes_them_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def extract(type: str, raw: bytes) -> Entries:
        return write_named("1", "Ada").entries

    async def test(store: SqliteStore) -> None:
        await write(store, write_named("1", "Lovelace"))
        await store.reindex("Patient", extract, await store.registry_version())
        assert read_grams(path) == {"ada"}
        assert await ids(store, "Patient", contain("ada")) == ["1"]

    run_on_store(path, test)


@pytest.mark.parametrize("most", [0, 3, 1000])
def test_many_values_and_few_give_the_same_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Whether the values found are looked up by name, or the resources that have them are read by a subquery."""
    monkeypatch.setattr(expand, "_MOST_VALUES", most)

    async def test(store: SqliteStore) -> None:
        await store.transact(Transaction(tuple(write_named(f"{n:03}", f"Mc{n:03}Gregor", "Bo") for n in range(200))))
        assert await ids(store, "Patient", contain("gregor")) == [f"{n:03}" for n in range(200)]
        assert await ids(store, "Patient", contain("c17")) == [f"{n:03}" for n in range(170, 180)]
        assert await ids(store, "Patient", contain("17")) == sorted(
            f"{n:03}" for n in range(200) if n // 10 == 17 or n % 100 == 17
        )
        assert await ids(store, "Patient", Not(contain("gregor"))) == []
        assert await store.count(Query((Scope("Patient", contain("05g")),))) == 2

    run_on_store(tmp_path / "a.db", test)


def test_the_trigrams_are_in_the_plan(tmp_path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await write(store, write_named("1", "Lovelace"))
        lines = await store.explain(Query((Scope("Patient", contain("velac")),)))
        assert any("SEARCH g USING PRIMARY KEY (tp=? AND gram=?)" in line for line in lines), lines

    run_on_store(tmp_path / "a.db", test)
