"""Full text in an FTS5 table of SQLite, searched by words and phrases (https://www.sqlite.org/fts5.html).

    words         (rid, type, text, content)   the words of `_text` and of `_content`, joined by blanks
    words_index   the same by word, each marked with the number of its type, so that a search reads nothing of others

`search.words` splits texts into words; FTS5 gets them joined by blanks, with the tokenizer `ascii`, which splits at
blanks and changes nothing else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from fhir_server.search.entries import TextParameter
from fhir_server.search.query import Sort, Words
from fhir_server.search.words import CONTENT, TEXT, score
from fhir_server.store.protocol import StoreUnavailable
from fhir_server.store.sqlite.conditions import Sql
from fhir_server.store.sqlite.context import Context
from fhir_server.store.sqlite.interned_names import UNKNOWN
from fhir_server.store.sqlite.statements import read_json

_COLUMNS: Mapping[TextParameter, str] = {TEXT: "text", CONTENT: "content"}

_INDEX = "CREATE VIRTUAL TABLE words_index USING fts5(text, content, content = '', columnsize = 0, tokenize = 'ascii')"
FTS5_TABLES = "main.words_index_"
"""How the names of the index's own tables begin, in the statements by which FTS5 reads them."""

_MERGED_PAGES = 200
"""Pages of the index that one step of a merge writes: others' writes wait for it."""

_EXISTS = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'words_index')"
_BEFORE = (
    "SELECT json_group_array(json_array(w.rid, w.type, w.text, w.content))"
    " FROM json_each(?) j CROSS JOIN words w WHERE w.rid = j.value"
)

ResourceTexts = tuple[int, int, Mapping[TextParameter, str] | None]
"""A resource's `rid`, the number of its type, and its present texts (None: it has none)."""


def create_index(connection: sqlite3.Connection) -> None:
    """Create the index if it is absent and this SQLite can; without it the file holds no texts."""
    if not connection.execute(_EXISTS).fetchone()[0] and has_fts5(connection):
        connection.execute(_INDEX)


def has_fts5(connection: sqlite3.Connection) -> bool:
    """Whether this SQLite is built with FTS5."""
    return bool(connection.execute("SELECT sqlite_compileoption_used('ENABLE_FTS5')").fetchone()[0])


def check_index(connection: sqlite3.Connection) -> None:
    """Raises StoreUnavailable when words cannot be indexed here."""
    if not has_fts5(connection):
        raise StoreUnavailable(
            f"Full-text search needs SQLite with FTS5, which this one ({sqlite3.sqlite_version}) is built without. "
            "Use a Python whose SQLite has it, or switch the setting `FHIR_FULL_TEXT` off."
        )
    if not connection.execute(_EXISTS).fetchone()[0]:
        raise StoreUnavailable(
            "This database has no full-text index and is open for reading only. Open it once for writing, or switch "
            "the setting `FHIR_FULL_TEXT` off."
        )


def replace_texts(connection: sqlite3.Connection, resources: Sequence[ResourceTexts]) -> None:
    """Replace the rows of resources by those of their texts, in the open transaction."""
    after = {rid: (type, *(texts.get(name, "") for name in _COLUMNS)) for rid, type, texts in resources if texts}
    rids = sorted({rid for rid, _, _ in resources})
    before = {rid: tuple(row) for rid, *row in read_json(connection, _BEFORE, rids)}
    gone = [(rid, *row) for rid, row in before.items() if after.get(rid) != row]
    fresh = [(rid, *row) for rid, row in sorted(after.items()) if before.get(rid) != row]
    if gone:
        removed = "INSERT INTO words_index (words_index, rowid, text, content) VALUES ('delete', ?, ?, ?)"
        connection.executemany(removed, map(_mark_row, gone))
        connection.executemany("DELETE FROM words WHERE rid = ?", [(row[0],) for row in gone])
    if fresh:
        connection.executemany("INSERT INTO words VALUES (?, ?, ?, ?)", fresh)
        added = "INSERT INTO words_index (rowid, text, content) VALUES (?, ?, ?)"
        connection.executemany(added, map(_mark_row, fresh))


def iterate_merges(connection: sqlite3.Connection) -> Iterator[None]:
    """Merge the parts of the index a few pages at a time: until then it keeps the words of what was removed."""
    if not connection.execute(_EXISTS).fetchone()[0]:
        return
    pages, before = -_MERGED_PAGES, -1  # a negative number begins a merge of all parts
    while connection.total_changes > before + 1:  # what changes less has nothing more to merge
        before = connection.total_changes
        connection.execute("INSERT INTO words_index (words_index, rank) VALUES ('merge', ?)", (pages,))
        pages = _MERGED_PAGES
        yield


def _mark_row(row: tuple[Any, ...]) -> tuple[int, str, str]:
    rid, type, text, content = row
    return rid, _mark_words(text, type), _mark_words(content, type)


def _mark_words(text: str, type: int) -> str:
    """The words with their type's mark."""
    mark = "·" if type == UNKNOWN else f"{type}·"  # a minus sign would part the mark
    return mark + text.replace(" ", f" {mark}") if text else ""


def select_words(clause: Words, type: str, context: Context) -> Sql:
    """A SELECT of the `rid`s of the resources of a type that have the words."""
    phrase = _mark_words(" ".join(clause.words), context.find_code(type))
    match = f'{_COLUMNS[clause.parameter]} : "{phrase}"{" *" if clause.prefix else ""}'
    return "SELECT rowid AS rid FROM words_index WHERE words_index MATCH ?", (match,)


def probe_words(clause: Words, type: str, alias: str, context: Context) -> Sql:
    """The condition that one resource has the words, tested on its own row of `words`."""
    column = f"w.{_COLUMNS[clause.parameter]}"
    phrase = f" {' '.join(clause.words)}{'' if clause.prefix else ' '}"
    text = f"EXISTS (SELECT 1 FROM words w WHERE w.rid = {alias}.rid AND instr(' ' || {column} || ' ', ?))"
    return text, (phrase,)


def compile_score(sort: Sort) -> Sql:
    """The score of the row `r` of `resource`; see `register_score`."""
    clauses = orjson.dumps([(clause.parameter, clause.words, clause.prefix) for clause in sort.words]).decode()
    text = "coalesce((SELECT score(?, w.text, w.content) FROM words w WHERE w.rid = r.rid), 0.0)"
    return text, (clauses,)


def register_score(connection: sqlite3.Connection) -> None:
    """Define the SQL function `score` on a connection."""
    connection.create_function("score", 3, _score_row, deterministic=True)


def _score_row(clauses: str, text: str, content: str) -> float:
    return score(_parse_clauses(clauses), {TEXT: text, CONTENT: content})


@lru_cache(maxsize=64)
def _parse_clauses(text: str) -> tuple[Words, ...]:
    return tuple(Words(parameter, tuple(words), prefix) for parameter, words, prefix in orjson.loads(text))
