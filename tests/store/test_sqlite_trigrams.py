"""Trigrams are those of the string values in use, and `:contains` finds by them (https://hl7.org/fhir/R4/search.html#string)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fhir_server.search.entries import Entries
from fhir_server.search.query import Contains, Not, Query, Scope
from fhir_server.store.contract.case import Ticks, delete, ids, put, string, terms, token, write
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.sqlite import SqliteStore, expand, open_store


def run(path: Path, test: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def opened() -> None:
        store = await open_store(f"sqlite:///{path}", Ticks())
        try:
            await test(store)
        finally:
            await store.close()

    asyncio.run(opened())


def named(id: str, *names: str) -> Write:
    entries = terms(name=tuple(map(string, names)), code=[token("code", "urn:code")])
    return put(f"Patient/{id}", replace(entries, strings=frozenset({"name", "family"})))


def kept(path: Path) -> set[str]:
    """The trigrams in the file."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        found = {gram for (gram,) in connection.execute("SELECT gram FROM gram")}
    connection.close()
    return found


def part(text: str) -> Contains:
    return Contains("name", text, strings=True)


def test_each_three_characters_of_a_string_are_kept_and_none_of_a_token(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await write(store, named("1", "Lovelace", "Bo"))
        assert kept(path) == {"lov", "ove", "vel", "ela", "lac", "ace"}

    run(path, test)


def test_a_value_is_kept_as_long_as_some_resource_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await store.transact(Transaction((named("1", "Anna"), named("2", "Anna", "Hanna"))))
        assert kept(path) == {"ann", "nna", "han"}
        await write(store, named("1", "Cleo"))
        assert kept(path) == {"ann", "nna", "han", "cle", "leo"}
        assert await ids(store, "Patient", part("nna")) == ["2"]
        await write(store, named("2", "Hanna"))
        assert await ids(store, "Patient", part("ann")) == ["2"]
        await write(store, delete("Patient/2"))
        assert kept(path) == {"cle", "leo"}
        assert await ids(store, "Patient", part("ann")) == []

    run(path, test)


def test_a_value_that_moves_from_one_resource_to_another_at_once_is_still_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await store.transact(Transaction((named("1", "Anna"), named("2", "Cleo"))))
        await store.transact(Transaction((named("1", "Cleo"), named("2", "Anna"))))
        assert kept(path) == {"ann", "nna", "cle", "leo"}
        assert await ids(store, "Patient", part("ann")) == ["2"]
        assert await ids(store, "Patient", part("leo")) == ["1"]

    run(path, test)


def test_nothing_of_what_was_purged_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        await write(store, named("1", "Lovelace"))
        assert await store.purge("Patient", "1")
        assert kept(path) == set()

    run(path, test)


def test_reindexing_makes_them_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def extract(type: str, raw: bytes) -> Entries:
        return named("1", "Ada").entries

    async def test(store: SqliteStore) -> None:
        await write(store, named("1", "Lovelace"))
        await store.reindex("Patient", extract, await store.registry_version())
        assert kept(path) == {"ada"}
        assert await ids(store, "Patient", part("ada")) == ["1"]

    run(path, test)


@pytest.mark.parametrize("most", [0, 3, 1000])
def test_many_values_and_few_give_the_same_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Whether the values found are looked up by name, or the resources that have them are read by a subquery."""
    monkeypatch.setattr(expand, "_MOST_VALUES", most)

    async def test(store: SqliteStore) -> None:
        await store.transact(Transaction(tuple(named(f"{n:03}", f"Mc{n:03}Gregor", "Bo") for n in range(200))))
        assert await ids(store, "Patient", part("gregor")) == [f"{n:03}" for n in range(200)]
        assert await ids(store, "Patient", part("c17")) == [f"{n:03}" for n in range(170, 180)]
        assert await ids(store, "Patient", part("17")) == sorted(
            f"{n:03}" for n in range(200) if n // 10 == 17 or n % 100 == 17
        )
        assert await ids(store, "Patient", Not(part("gregor"))) == []
        assert await store.count(Query((Scope("Patient", part("05g")),))) == 2

    run(tmp_path / "a.db", test)


def test_the_trigrams_are_in_the_plan(tmp_path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await write(store, named("1", "Lovelace"))
        lines = await store.explain(Query((Scope("Patient", part("velac")),)))
        assert any("SEARCH g USING PRIMARY KEY (tp=? AND gram=?)" in line for line in lines), lines

    run(tmp_path / "a.db", test)
