"""How the SQLite store finds: by index only, within its budget, and exactly at the edges of texts and numbers."""

from __future__ import annotations

import math
import random
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.search.entries import SEPARATOR, Entries, compute_successor
from fhir_server.search.query import (
    And,
    Bound,
    Chain,
    Clause,
    Contains,
    DateRange,
    Equals,
    Has,
    Ids,
    LastUpdated,
    Not,
    NumberRange,
    Or,
    Present,
    Query,
    Scope,
    Sort,
    StartsWith,
    Words,
)
from fhir_server.store.contract.case import (
    HOUR,
    START,
    Ticks,
    ids,
    numbers,
    post,
    purge,
    put,
    query,
    string,
    terms,
    token,
    write,
)
from fhir_server.store.operations import Transaction, Write
from fhir_server.store.protocol import Budget, BudgetExceeded
from fhir_server.store.sqlite import SqliteStore, open_store
from fhir_server.store.sqlite.cardinality import Sizes
from fhir_server.store.sqlite.interned_names import Names
from fhir_server.store.sqlite.rows import float_to_integer, integer_to_float, is_local
from fhir_server.store.sqlite.schema import connect
from fhir_server.store.sqlite.search import Search
from fhir_server.store.sqlite.store import READERS
from tests.store.sqlite_runs import run_on_store

DAY = 24 * HOUR
PATIENTS, OBSERVATIONS = 150, 3000


def _write_patient(number: int) -> Write:
    born = -number * 200 * DAY
    return post(
        f"Patient/{number:04}",
        Entries(
            terms={
                "gender": (token(("female", "male")[number % 2], "urn:gender"),),
                "family": (string(f"Family{number % 50}"),),
                "name": (string(f"Family{number % 50}"), string(f"Given{number}")),
            },
            dates={"birthdate": ((born, born + DAY - 1),)} | ({"death": ((0, DAY),)} if number % 9 == 0 else {}),
        ),
    )


def _write_observation(number: int, chance: random.Random) -> Write:
    patient = f"Patient/{number % PATIENTS:04}"
    moment, value = START - chance.randrange(3000) * DAY, float(chance.randrange(200))
    code = token(f"c{number % 40}", "urn:loinc")
    return post(
        f"Observation/{chance.getrandbits(64):016x}",
        Entries(
            terms={"code": (code,), "patient": (patient,), "category": (token("vital-signs", "urn:category"),)},
            dates={"date": ((moment, moment + 999_999),)},
            numbers={
                "value-quantity": (("", value, value, ""),),
                "code-value-quantity": ((code, value, value, ""),),
            },
            references=(patient,),
            texts={"_content": f"vital word{number % 40} sign"},
        ),
    )


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database of patients and observations."""
    path, chance = tmp_path_factory.mktemp("sqlite") / "clinic.db", random.Random(5)

    async def fill(store: SqliteStore) -> None:
        writes = [_write_patient(number) for number in range(PATIENTS)]
        writes += [_write_observation(number, chance) for number in range(OBSERVATIONS)]
        await store.transact(Transaction(tuple(writes)))

    run_on_store(path, fill)
    yield path


CODE = Equals("code", (token("c2", "urn:loinc"),))
PATIENT = Equals("patient", ("Patient/0042",))
FEMALE = StartsWith("gender", f"female{SEPARATOR}")
SINCE = DateRange("date", (Bound("high", "ge", START - 900 * DAY),))
VALUE = NumberRange("value-quantity", (Bound("high", "gt", 150.0),))
PAIR = NumberRange("code-value-quantity", (Bound("high", "gt", 150.0),), token("c2", "urn:loinc"))
BORN = DateRange("birthdate", (Bound("low", "ge", -9000 * DAY),))

SCORE = Sort("_score", "score", True, (Words("_content", ("word7",)),))

# The kinds of search of the bench's mix (shared/peers.md), by type.
MIX: tuple[tuple[str, Clause, tuple[Sort, ...]], ...] = (
    ("Patient", FEMALE, ()),
    ("Patient", BORN, ()),
    ("Patient", StartsWith("family", "family1"), ()),
    ("Patient", Contains("name", "ven14"), ()),
    ("Patient", And(), (Sort("birthdate", "date"),)),
    ("Patient", And(), (Sort("birthdate", "date", True),)),
    ("Patient", Ids(("0007",)), ()),
    ("Patient", Not(Present("death")), ()),
    ("Patient", Present("death"), ()),
    ("Patient", Not(FEMALE), ()),
    ("Patient", Has("Observation", "patient", CODE), ()),
    ("Observation", PATIENT, ()),
    ("Observation", CODE, ()),
    ("Observation", And((PATIENT, CODE)), (Sort("date", "date", True),)),
    ("Observation", And((CODE, VALUE)), ()),
    ("Observation", VALUE, ()),
    ("Observation", PAIR, ()),
    ("Observation", And((Equals("category", (token("vital-signs", "urn:category"),)), SINCE)), ()),
    ("Observation", And((Chain("patient", "Patient", FEMALE), CODE)), ()),
    ("Observation", Chain("patient", "Patient", FEMALE), ()),
    ("Observation", Or((PATIENT, CODE)), ()),
    ("Observation", Words("_content", ("vital", "word7")), ()),
    ("Observation", Words("_content", ("word",), True), (Sort("date", "date", True),)),
    ("Observation", And((Words("_content", ("word7",)), Not(Words("_content", ("absent",))))), (SCORE,)),
    ("Observation", And(), (Sort("_lastUpdated", "lastUpdated", True),)),
    ("Observation", LastUpdated((Bound("low", "ge", START), Bound("high", "le", START))), ()),
    ("Observation", CODE, (Sort("date", "date"), Sort("code", "term"))),
)


@pytest.mark.parametrize(("type", "where", "sort"), MIX, ids=lambda value: type(value).__name__)
def test_no_search_reads_a_whole_table(clinic: Path, type: str, where: Clause, sort: tuple[Sort, ...]) -> None:
    """Every table is entered by an index (https://www.sqlite.org/eqp.html: SEARCH, where SCAN visits all rows)."""
    connection = connect(clinic, writer=False)
    names, statements = Names(), list[str]()
    names.refresh(connection)
    search = Search(connection, names, Sizes())
    connection.set_trace_callback(statements.append)
    found = search.find_page(Query((Scope(type, where),), sort, 20)).matches
    total = search.count(Query((Scope(type, where),)))
    connection.set_trace_callback(None)
    assert len(found) == min(20, total) > 0
    for statement in statements:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            assert _find_scans(connection, statement) == []
    connection.close()


_NO_TABLE = ("CONSTANT ROW", "VIRTUAL TABLE", "SCAN found", "SCAN y", "SCAN p", "SCAN rc", "SCAN bc", "SCAN qc", "(sub")
_FTS5_SETTINGS = "words_index_config"


def _find_scans(connection: sqlite3.Connection, statement: str) -> list[str]:
    steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    excused = (*_NO_TABLE, _FTS5_SETTINGS)
    return [step for step in steps if step.startswith("SCAN") and not any(each in step for each in excused)]


def test_scans_would_be_noticed(clinic: Path) -> None:
    connection = connect(clinic, writer=False)
    assert _find_scans(connection, "SELECT rid FROM term WHERE value = 'x'") != []
    connection.close()


def test_a_search_that_takes_too_long_is_stopped(clinic: Path) -> None:
    connection = connect(clinic, writer=False)
    names = Names()
    names.refresh(connection)
    search = Search(connection, names, Sizes(), Budget(seconds=0.0))
    dear = query("Observation", Not(Or((Contains("code", "nowhere"), Contains("category", "nothing")))))
    with pytest.raises(BudgetExceeded, match="stopped after 0 seconds"):
        for _ in range(100):
            search.count(dear)
    assert not connection.in_transaction
    assert Search(connection, names, Sizes()).count(dear) == OBSERVATIONS
    connection.close()


def test_a_walk_that_meets_too_few_matches_is_given_up(tmp_path: Path) -> None:
    """Two common codes that never meet: by their shares many matches are expected, and there are none but the last."""

    async def test(store: SqliteStore) -> None:
        writes = [
            put(f"Basic/{number:05}", terms(a=["x" if number % 2 else "y"], b=["y" if number % 2 else "x"]))
            for number in range(9000)
        ]
        writes.append(put("Basic/99999", terms(a=["x"], b=["x"])))
        await store.transact(Transaction(tuple(writes)))
        assert await ids(store, "Basic", And((Equals("a", ("x",)), Equals("b", ("x",))))) == ["99999"]

    run_on_store(tmp_path / "a.db", test)


@pytest.mark.parametrize(
    "where",
    [
        StartsWith("code", f"a{SEPARATOR}"),
        Chain("subject", "Patient", Equals("name", ("a",))),
        Has("Observation", "subject", Equals("code", ("a",))),
    ],
)
def test_an_explained_search_leaves_no_snapshot_behind(tmp_path: Path, where: Clause) -> None:
    """The reader that explained sees what is written afterwards."""

    async def test(store: SqliteStore) -> None:
        for number in range(2 * READERS):
            await store.explain(query("Patient", where))
            await write(store, put(f"Patient/{number}"))
            assert len(await ids(store, "Patient", And())) == number + 1

    run_on_store(tmp_path / "a.db", test)


def test_a_new_code_is_found_by_its_prefix_at_once(tmp_path: Path) -> None:
    """A token without a system is looked up as the terms that exist; another process may add one at any time."""
    path = tmp_path / "a.db"

    async def test(store: SqliteStore) -> None:
        other = await open_store(f"sqlite:///{path}", Ticks())
        for number in range(12):
            await write(store, put(f"Basic/{number:02}", terms(code=[token("c", f"urn:{number}")])))
            found = await ids(other, "Basic", StartsWith("code", f"c{SEPARATOR}"))
            assert found == [f"{each:02}" for each in range(number + 1)]
        await other.close()

    run_on_store(path, test)


def test_the_first_label_of_a_type_hides_at_once(tmp_path: Path) -> None:
    """What access tests for is a parameter that no resource had, until another process stores one."""
    path = tmp_path / "a.db"
    visible = (And(), Not(Equals("label", ("R", "V"))))

    async def test(store: SqliteStore) -> None:
        other = await open_store(f"sqlite:///{path}", Ticks())
        await write(store, put("Basic/1", terms(code=["c"])), put("Basic/2", terms(code=["c"])))
        for where in (And((Equals("code", ("c",)), visible[1])), And(visible)):
            assert await ids(other, "Basic", where) == ["1", "2"]
        await write(store, put("Basic/2", terms(code=["c"], label=["V"])))
        for where in (And((Equals("code", ("c",)), visible[1])), And(visible)):
            assert await ids(other, "Basic", where) == ["1"]
        await other.close()

    run_on_store(path, test)


def test_a_link_to_what_comes_later_is_a_link(tmp_path: Path) -> None:
    """References may be stored before their target (FHIR_REFERENCES=allow, design.md §5)."""
    named = Chain("patient", "Patient", Equals("family", ("smith",)))

    async def test(store: SqliteStore) -> None:
        link = terms(patient=["Patient/a"], references=["Patient/a"])
        await write(store, put("Observation/o", link))
        assert await store.read("Patient", "a") is None
        assert await store.vread("Patient", "a", 0) is None
        assert (await store.read_many(["Patient/a"])) == {}
        assert await ids(store, "Patient", And()) == []
        assert await ids(store, "Observation", named) == []
        assert await ids(store, "Observation", Equals("patient", ("Patient/a",))) == ["o"]
        (written,) = (await write(store, post("Patient/a", terms(family=["smith"])))).written
        assert (written.version, written.created) == (1, True)
        assert await ids(store, "Observation", named) == ["o"]
        await purge(store, "Patient/a")
        await purge(store, "Patient/a")
        assert await ids(store, "Observation", named) == []
        assert await ids(store, "Observation", Equals("patient", ("Patient/a",))) == ["o"]
        (written,) = (await write(store, post("Patient/a", terms(family=["smith"])))).written
        assert written.version == 1
        assert await ids(store, "Observation", named) == ["o"]

    run_on_store(tmp_path / "a.db", test)


def test_numbers_are_compared_exactly(tmp_path: Path) -> None:
    values = [0.1, math.nextafter(0.1, 1), 1e300, -1e-300, 0.0, -0.0, math.inf, -math.inf]

    async def test(store: SqliteStore) -> None:
        for position, value in enumerate(values):
            await write(store, put(f"Basic/{position}", numbers(value=[("", value, value, "")])))
        for value in values:
            where = NumberRange("value", (Bound("low", "ge", value), Bound("high", "le", value)))
            expected = [str(position) for position, each in enumerate(values) if each == value]
            assert await ids(store, "Basic", where) == expected
        page = await store.search(query("Basic", sort=(Sort("value", "number"),), count=4))
        assert [match.id for match in page.matches] == ["7", "3", "4", "5"]
        assert page.next == (0.0, "Basic/5")

    run_on_store(tmp_path / "a.db", test)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_ordered_numbers_sort_as_their_floats(left: float, right: float) -> None:
    assert (float_to_integer(left) < float_to_integer(right)) == (left < right)
    assert (float_to_integer(left) == float_to_integer(right)) == (left == right)
    assert integer_to_float(float_to_integer(left)) == left


def test_ordered_numbers_fit_sqlite() -> None:
    largest = struct.unpack("<d", b"\xff" * 6 + b"\xef\x7f")[0]
    for value in (largest, -largest, math.inf, -math.inf, 5e-324, -5e-324):
        assert -(2**63) <= float_to_integer(value) < 2**63


@given(st.text(), st.text())
def test_the_successor_bounds_the_texts_with_a_prefix(prefix: str, text: str) -> None:
    end = compute_successor(prefix)
    for each in (text, prefix + text, prefix):
        assert each.startswith(prefix) == (each >= prefix and (end is None or each < end))


@pytest.mark.parametrize(
    ("term", "local"),
    [
        ("Patient/a", True),
        ("Patient/A-1.b", True),
        ("Patient/", False),
        ("Patient/a/b", False),
        (f"Patient/{'x' * 65}", False),
        ("http://x.org/Patient/a", False),
        (f"Patient/a{SEPARATOR}", False),
        ("patient/a", False),
        ("Patient/a\n", False),
    ],
)
def test_local_references_are_told_by_their_form(term: str, local: bool) -> None:
    """`[type]/[id]`, an id being `[A-Za-z0-9\\-.]{1,64}` (https://hl7.org/fhir/R4/datatypes.html#id)."""
    assert is_local(term) is local
