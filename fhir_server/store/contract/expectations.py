"""What each clause of the search tree finds among a small, fixed set of resources (https://hl7.org/fhir/R4/search.html).

`CLAUSES` lists clause and ids by hand; every store and `match.py` are tested with the same table.
"""

from __future__ import annotations

from dataclasses import replace

from fhir_server.search.entries import COMPOSITE, OPEN_HIGH, OPEN_LOW, SEPARATOR, Entries
from fhir_server.search.nested_index import name_nested
from fhir_server.search.query import (
    EVERYTHING,
    NOTHING,
    And,
    Bound,
    CanonicalChain,
    CanonicalHas,
    Chain,
    Clause,
    Contains,
    DateRange,
    EndsWith,
    Equals,
    Has,
    Ids,
    Not,
    NumberRange,
    Or,
    Present,
    StartsWith,
    Within,
)
from fhir_server.store.contract.case import (
    canonical,
    dates,
    numbers,
    put,
    terms,
    text_of,
    token,
)
from fhir_server.store.operations import Write

UCUM = "http://unitsofmeasure.org"
ODD = "50%_\\'\"*[a-z]?"
"""A text in which every character that a database's pattern language gives a meaning occurs."""


def patient(id: str, names: tuple[str, ...], identifiers: tuple[str, ...] = (), **rest: tuple[str, ...]) -> Write:
    """A Patient with names and identifiers."""
    entries = {"name": map(text_of, names), "identifier": identifiers, **rest}
    made = terms(**{name: tuple(values) for name, values in entries.items()})
    return put(f"Patient/{id}", replace(made, strings=frozenset({"name"})))


def amount(id: str, *entries: tuple[str, float, float, str]) -> Write:
    """An Observation with numbers only."""
    return put(f"Observation/{id}", numbers(value=entries))


def period(id: str, *intervals: tuple[int, int]) -> Write:
    """An Encounter with date intervals."""
    return put(f"Encounter/{id}", dates(date=intervals))


MG, MG_TEXT, NO_UNIT = f"{UCUM}{SEPARATOR}mg{SEPARATOR}milligram", f"{SEPARATOR}{SEPARATOR}mg", ""


def _elements(found: tuple[tuple[str, float], ...]) -> Entries:
    """The entries of a composite `pair` of a token and a number, an element each."""
    places = [name_nested("pair", "", number) for number in range(len(found))]
    return Entries(
        terms={"pair": ("#",)}
        | {name: (str(number),) for number, name in enumerate(places)}
        | {f"{name}.code": (token(code),) for name, (code, _) in zip(places, found, strict=True)},
        numbers={f"{name}.value": (("", value, value, ""),) for name, (_, value) in zip(places, found, strict=True)},
    )


RESOURCES: tuple[Write, ...] = (
    patient("ann", ("Ann", "Müller"), (token("1", "urn:a"), token("2", "urn:b")), gender=(token("female"),)),
    patient("ann2", ("Annabel", ODD), (token("1", "urn:b"), token("12", "urn:a"))),
    patient("bob", ("bob", "x\U0010ffffy", "x\ud7ffz"), (token("1"), token("1:a", "urn")), gender=(token("male"),)),
    patient("cid", (), (token("A", "urn:a"),), link=("Patient/ann", "Patient/never")),
    patient("dan", ("Dan",), link=("Patient/bob", "http://x.org/Patient/ann", "Encounter/ann")),
    amount("n1", ("", 1.0, 1.0, MG), ("", 9.0, 9.0, NO_UNIT)),
    amount("n2", ("", 5.0, 5.0, MG_TEXT), (token("8480-6"), 120.0, 120.0, NO_UNIT)),
    amount("n3", (token("8480-6"), 90.0, 90.0, MG), (token("8462-4"), 120.0, 120.0, MG)),
    amount("n4", ("", -3.5, 2.5, f"urn:x{SEPARATOR}mg{SEPARATOR}")),
    put("Observation/s1", terms(subject=["Patient/ann"], code=[token("a")], part=["Observation/s2"])),
    put("Observation/s2", terms(subject=["Patient/ann", "Patient/bob"], code=[token("b")])),
    put("Observation/s3", terms(subject=["Patient/cid"], code=[token("a")], performer=["Patient/bob"])),
    put("Observation/s4", terms(subject=["Group/ann", "http://x.org/Patient/cid"], code=[token("a")])),
    put("Group/ann", terms(code=[token("a")], member=["Patient/dan"])),
    put("Library/l1", terms(url=["urn:l"], version=[token("1")], name=[text_of("one")])),
    put("Library/l2", terms(url=["urn:l"], version=[token("2")], name=[text_of("two")])),
    put("Library/l3", terms(url=["l"], name=[text_of("one")])),
    put("Measure/m1", terms(library=[canonical("urn:l")], status=[token("a")])),
    put("Measure/m2", terms(library=[canonical("urn:l", "2"), canonical("l"), "Library/l3"], status=[token("b")])),
    put("Measure/m3", terms(library=[canonical("urn:l", "3"), canonical("urn:li")], status=[token("a")])),
    put("Measure/m4", terms(status=[token("a")])),
    put("Account/a1", _elements((("a", 1), ("b", 2)))),
    put("Account/a2", _elements((("b", 1),))),
    period("p1", (10, 20)),
    period("p2", (15, 15), (100, 200)),
    period("p3", (OPEN_LOW, 12)),
    period("p4", (150, OPEN_HIGH)),
    put("Encounter/p5", Entries(terms={"date": (COMPOSITE.join((token("a"), token("b"))),)})),
)


def _name(*clauses: str) -> Clause:
    return Equals("name", tuple(map(text_of, clauses)))


def _dated(*tests: Bound) -> Clause:
    return DateRange("date", tests)


def _valued(*tests: Bound, key: str = "", unit: tuple[str | None, str] | None = None) -> Clause:
    return NumberRange("value", tests, key, unit)


def _holds(text: str) -> Clause:
    """What a store may have an index of."""
    return Contains("name", text, strings=True)


CODE_A = Equals("code", (token("a"),))
FEMALE = Equals("gender", (token("female"),))

Expectation = tuple[str, Clause, str]
"""(resource type, clause, ids in order, separated by spaces)."""

TERMS: tuple[Expectation, ...] = (
    ("Patient", Equals("identifier", (token("1", "urn:a"),)), "ann"),
    ("Patient", Equals("identifier", (token("1", "urn:a"), token("1", "urn:b"))), "ann ann2"),
    ("Patient", Equals("identifier", (token("1"),)), "bob"),
    ("Patient", Equals("identifier", (token("a", "urn:a"),)), ""),
    ("Patient", Equals("identifier", ()), ""),
    ("Patient", Equals("identifier", (token("A", "urn:a"), token("A", "urn:a"))), "cid"),
    ("Patient", Equals("unknown", (token("1"),)), ""),
    ("Patient", Equals("name", (token("1", "urn:a"),)), ""),
    ("Observation", Equals("identifier", (token("1", "urn:a"),)), ""),
    ("Patient", _name("Ann"), "ann"),
    ("Patient", _name("ANN"), ""),
    ("Patient", _name("Müller", "Dan", "Nobody"), "ann dan"),
    ("Encounter", Equals("date", (COMPOSITE.join((token("a"), token("b"))),)), "p5"),
    ("Patient", StartsWith("name", "ann"), "ann ann2"),
    ("Patient", StartsWith("name", "ann" + SEPARATOR), "ann"),
    ("Patient", StartsWith("name", "Ann"), ""),
    ("Patient", StartsWith("name", "an"), "ann ann2"),
    ("Patient", StartsWith("name", "x\U0010ffff"), "bob"),
    ("Patient", StartsWith("name", "x\ud7ff"), "bob"),
    ("Patient", StartsWith("name", "\U0010ffff"), ""),
    ("Patient", StartsWith("name", "50%_"), "ann2"),
    ("Patient", StartsWith("name", "5_%"), ""),
    ("Patient", StartsWith("name", "5*"), ""),
    ("Patient", StartsWith("name", ""), "ann ann2 bob dan"),
    ("Patient", StartsWith("name", "an", few=True), "ann ann2"),
    ("Patient", StartsWith("name", "no", few=True), ""),
    ("Patient", StartsWith("name", "\U0010ffff", few=True), ""),
    ("Patient", Or((StartsWith("name", "x"), StartsWith("nothing", "an", few=True))), "bob"),
    ("Patient", Or((StartsWith("nothing", "an"), StartsWith("name", "an", few=True))), "ann ann2"),
    ("Patient", StartsWith("identifier", "1" + SEPARATOR), "ann ann2 bob"),
    ("Patient", StartsWith("identifier", "1"), "ann ann2 bob"),
    ("Patient", _holds("n"), "ann ann2 dan"),
    ("Patient", _holds("nn"), "ann ann2"),
    ("Patient", _holds("nnabe"), "ann2"),
    ("Patient", _holds("üll"), "ann"),
    ("Patient", _holds("Ann"), ""),
    ("Patient", _holds("ANN"), ""),
    ("Patient", _holds("annx"), ""),
    ("Patient", _holds("%_\\'"), "ann2"),
    ("Patient", _holds("a%l"), ""),
    ("Patient", _holds("a_n"), ""),
    ("Patient", _holds("[a-z]"), "ann2"),
    ("Patient", _holds('"*['), "ann2"),
    ("Patient", _holds("ann OR bob"), ""),
    ("Patient", _holds("annabe"), "ann2"),
    ("Patient", _holds("nna nab"), ""),
    ("Patient", _holds("anabe"), ""),
    ("Patient", _holds("x\U0010ffffy"), "bob"),
    ("Patient", Not(_holds("nnabe")), "ann bob cid dan"),
    # Of terms that are no strings nothing is promised but the answer.
    ("Patient", Contains("name", "nnabe"), "ann2"),
    ("Patient", Contains("link", "ient/b"), "dan"),
    ("Patient", Contains("identifier", "12"), "ann2"),
    ("Patient", Contains("identifier", "urn"), ""),
    ("Patient", EndsWith("identifier", SEPARATOR + "urn:a"), "ann ann2 cid"),
    ("Patient", EndsWith("identifier", SEPARATOR + "URN:A"), ""),
    ("Patient", EndsWith("identifier", SEPARATOR), "bob"),
    ("Patient", EndsWith("identifier", SEPARATOR + "urn"), "bob"),
    ("Patient", EndsWith("identifier", "_rn:a"), ""),
    ("Patient", EndsWith("name", SEPARATOR + ODD), "ann2"),
    ("Patient", Present("gender"), "ann bob"),
    ("Patient", Present("name"), "ann ann2 bob dan"),
    ("Patient", Present("unknown"), ""),
    ("Observation", Present("value"), "n1 n2 n3 n4"),
    ("Encounter", Present("date"), "p1 p2 p3 p4 p5"),
    ("Patient", Ids(("ann", "dan", "never", "Ann")), "ann dan"),
    ("Patient", Ids(("dan", "dan")), "dan"),
    ("Patient", Ids(()), ""),
    ("Group", Ids(("ann",)), "ann"),
)

RANGES: tuple[Expectation, ...] = (
    ("Encounter", _dated(), "p1 p2 p3 p4"),
    ("Encounter", _dated(Bound("low", "ge", 10), Bound("high", "le", 20)), "p1 p2"),
    ("Encounter", _dated(Bound("low", "gt", 10), Bound("high", "lt", 20)), "p2"),
    ("Encounter", _dated(Bound("high", "gt", 20)), "p2 p4"),
    ("Encounter", _dated(Bound("high", "ge", 20)), "p1 p2 p4"),
    ("Encounter", _dated(Bound("low", "lt", 15)), "p1 p3"),
    ("Encounter", _dated(Bound("low", "le", 15)), "p1 p2 p3"),
    ("Encounter", _dated(Bound("high", "ge", 200), Bound("low", "le", 100)), "p2"),
    ("Encounter", _dated(Bound("low", "le", 15), Bound("high", "ge", 100)), ""),
    ("Encounter", And((_dated(Bound("low", "le", 15)), _dated(Bound("high", "ge", 100)))), "p2"),
    ("Encounter", _dated(Bound("low", "gt", 20), Bound("low", "lt", 100)), ""),
    ("Encounter", _dated(Bound("high", "ge", OPEN_HIGH)), "p4"),
    ("Encounter", _dated(Bound("low", "le", OPEN_LOW)), "p3"),
    ("Encounter", DateRange("period", ()), ""),
    ("Encounter", Or((_dated(Bound("high", "lt", 13)), _dated(Bound("low", "gt", 140)))), "p3 p4"),
    ("Encounter", Not(_dated(Bound("low", "ge", 10), Bound("high", "le", 20))), "p3 p4 p5"),
    ("Observation", _valued(), "n1 n2 n4"),
    ("Observation", _valued(Bound("low", "ge", 5.0)), "n1 n2"),
    ("Observation", _valued(Bound("low", "gt", 5)), "n1"),
    ("Observation", _valued(Bound("low", "ge", 4.5), Bound("high", "lt", 5.5)), "n2"),
    ("Observation", _valued(Bound("low", "gt", 2), Bound("high", "lt", 5)), ""),
    ("Observation", _valued(Bound("low", "le", -3.5)), "n4"),
    ("Observation", _valued(Bound("high", "ge", 2.5), Bound("low", "le", 1.0)), "n4"),
    ("Observation", _valued(Bound("low", "ge", 1.0), unit=(UCUM, "mg")), "n1"),
    ("Observation", _valued(Bound("low", "ge", 2.0), unit=(UCUM, "mg")), ""),
    ("Observation", _valued(unit=(None, "mg")), "n1 n2 n4"),
    ("Observation", _valued(unit=(None, "milligram")), "n1"),
    ("Observation", _valued(unit=(None, "MG")), ""),
    ("Observation", _valued(unit=(UCUM, "milligram")), ""),
    ("Observation", _valued(unit=("urn:x", "mg")), "n4"),
    ("Observation", _valued(unit=(None, UCUM)), ""),
    ("Observation", _valued(unit=(None, "m")), ""),
    ("Observation", _valued(key=token("8480-6")), "n2 n3"),
    ("Observation", _valued(Bound("low", "ge", 100), key=token("8480-6")), "n2"),
    ("Observation", _valued(Bound("low", "ge", 100), key=token("8462-4")), "n3"),
    ("Observation", _valued(key=token("8480-6"), unit=(None, "mg")), "n3"),
    ("Observation", _valued(key="8480-6"), ""),
    ("Observation", NumberRange("quantity", ()), ""),
)

FOLLOWED: tuple[Expectation, ...] = (
    ("Observation", Chain("subject", "Patient", EVERYTHING), "s1 s2 s3"),
    ("Observation", Chain("subject", "Patient", NOTHING), ""),
    ("Observation", Chain("subject", "Group", EVERYTHING), "s4"),
    ("Observation", Chain("subject", "Group", CODE_A), "s4"),
    ("Observation", Chain("subject", "Patient", FEMALE), "s1 s2"),
    ("Observation", Chain("subject", "Patient", Not(FEMALE)), "s2 s3"),
    ("Observation", Not(Chain("subject", "Patient", FEMALE)), "n1 n2 n3 n4 s3 s4"),
    ("Observation", And((CODE_A, Chain("subject", "Patient", StartsWith("name", "ann")))), "s1"),
    ("Observation", Or((Chain("performer", "Patient", _name("bob")), Ids(("s4",)))), "s3 s4"),
    ("Observation", Chain("subject", "Patient", Ids(("bob",))), "s2"),
    ("Observation", Chain("subject", "Patient", And((FEMALE, _name("bob")))), ""),
    ("Observation", And((Chain("subject", "Patient", FEMALE), Chain("subject", "Patient", _name("bob")))), "s2"),
    ("Observation", Chain("part", "Observation", Chain("subject", "Patient", _name("bob"))), "s1"),
    ("Patient", Chain("link", "Patient", FEMALE), "cid"),
    ("Patient", Chain("link", "Patient", EVERYTHING), "cid dan"),
    ("Patient", Chain("link", "Encounter", EVERYTHING), ""),
    ("Patient", Has("Observation", "subject", CODE_A), "ann cid"),
    ("Patient", Has("Observation", "subject", EVERYTHING), "ann bob cid"),
    ("Patient", Has("Observation", "subject", NOTHING), ""),
    ("Patient", Has("Observation", "performer", CODE_A), "bob"),
    ("Group", Has("Observation", "subject", CODE_A), "ann"),
    ("Patient", Not(Has("Observation", "subject", CODE_A)), "ann2 bob dan"),
    ("Patient", And((Present("gender"), Has("Observation", "subject", CODE_A))), "ann"),
    ("Patient", Has("Observation", "subject", Has("Observation", "part", CODE_A)), "ann bob"),
    ("Patient", Has("Observation", "subject", Chain("subject", "Patient", _name("bob"))), "ann bob"),
    ("Patient", Has("Group", "member", Has("Observation", "subject", EVERYTHING)), "dan"),
    ("Patient", Has("Patient", "link", EVERYTHING), "ann bob"),
    ("Observation", Chain("subject", "Patient", Has("Patient", "link", Ids(("dan",)))), "s2"),
    ("Observation", Chain("subject", "Patient", Has("Observation", "performer", EVERYTHING)), "s2"),
)

_ONE, _TWO = Equals("name", (text_of("one"),)), Equals("name", (text_of("two"),))
_A, _B = Equals("status", (token("a"),)), Equals("status", (token("b"),))

NAMED: tuple[Expectation, ...] = (
    ("Measure", CanonicalChain("library", "Library", EVERYTHING), "m1 m2"),
    ("Measure", CanonicalChain("library", "Library", NOTHING), ""),
    ("Measure", CanonicalChain("library", "Library", _ONE), "m1"),
    ("Measure", CanonicalChain("library", "Library", _TWO), "m1 m2"),
    ("Measure", CanonicalChain("library", "Measure", EVERYTHING), ""),
    ("Measure", And((_A, CanonicalChain("library", "Library", _TWO))), "m1"),
    ("Measure", Not(CanonicalChain("library", "Library", _ONE)), "m2 m3 m4"),
    ("Measure", Chain("library", "Library", _ONE), "m2"),
    ("Measure", Or((Chain("library", "Library", _ONE), CanonicalChain("library", "Library", _ONE))), "m1 m2"),
    ("Measure", StartsWith("library", f"urn:l{SEPARATOR}"), "m1 m2 m3"),
    ("Library", CanonicalHas("Measure", "library", EVERYTHING), "l1 l2"),
    ("Library", CanonicalHas("Measure", "library", NOTHING), ""),
    ("Library", CanonicalHas("Measure", "library", _A), "l1 l2"),
    ("Library", CanonicalHas("Measure", "library", _B), "l2"),
    ("Library", And((_ONE, CanonicalHas("Measure", "library", _A))), "l1"),
    ("Library", Not(CanonicalHas("Measure", "library", _B)), "l1 l3"),
    ("Library", Has("Measure", "library", EVERYTHING), "l3"),
    ("Measure", CanonicalChain("library", "Library", CanonicalHas("Measure", "library", _B)), "m1 m2"),
)


def _pair(code: str, *tests: Bound) -> Clause:
    return Within("pair", And((Equals("code", (token(code),)), NumberRange("value", tests))))


WITHIN: tuple[Expectation, ...] = (
    ("Account", _pair("a"), "a1"),
    ("Account", _pair("b"), "a1 a2"),
    ("Account", _pair("b", Bound("low", "ge", 2)), "a1"),
    ("Account", _pair("a", Bound("low", "ge", 2)), ""),
    ("Account", Not(_pair("b", Bound("low", "ge", 2))), "a2"),
    ("Account", Within("pair", EVERYTHING), "a1 a2"),
    ("Account", Within("other", EVERYTHING), ""),
    ("Patient", _pair("a"), ""),
)

COMBINED: tuple[Expectation, ...] = (
    ("Patient", EVERYTHING, "ann ann2 bob cid dan"),
    ("Patient", NOTHING, ""),
    ("Patient", Not(EVERYTHING), ""),
    ("Patient", Not(NOTHING), "ann ann2 bob cid dan"),
    ("Practitioner", EVERYTHING, ""),
    ("Practitioner", Not(NOTHING), ""),
    ("Patient", Not(Present("gender")), "ann2 cid dan"),
    ("Patient", Not(Equals("gender", (token("male"),))), "ann ann2 cid dan"),
    ("Patient", And((Present("name"), Not(Present("gender")))), "ann2 dan"),
    ("Patient", And((EVERYTHING, FEMALE, And())), "ann"),
    ("Patient", And((FEMALE, NOTHING)), ""),
    ("Patient", Or((FEMALE, NOTHING, Ids(("cid",)))), "ann cid"),
    ("Patient", Or((FEMALE, Not(FEMALE))), "ann ann2 bob cid dan"),
    ("Patient", Or((EVERYTHING, FEMALE)), "ann ann2 bob cid dan"),
    ("Patient", And((Or((_name("Ann"), _name("Dan"))), Or((Present("link"), NOTHING)))), "dan"),
    ("Patient", Not(And((Present("name"), Not(Or((FEMALE, Present("link"))))))), "ann cid dan"),
    ("Patient", Not(Not(FEMALE)), "ann"),
    ("Patient", And((Equals("name", (text_of("Ann"),)), Equals("name", (text_of("Müller"),)))), "ann"),
    ("Patient", And((Ids(("ann", "bob")), Not(Ids(("bob",))))), "ann"),
)

CLAUSES = TERMS + RANGES + FOLLOWED + NAMED + WITHIN + COMBINED
