"""What each clause of the search tree finds among a small, fixed set of resources (https://hl7.org/fhir/R4/search.html).

`CLAUSES` lists clause and ids by hand; every store and `match.py` are tested with the same table.
"""

from __future__ import annotations

from dataclasses import replace

from fhir_server.search import query as q
from fhir_server.search.entries import COMPOSITE, OPEN_HIGH, OPEN_LOW, SEPARATOR, Entries
from fhir_server.search.nested_index import name_nested
from fhir_server.store.contract.case import canonical, dates, numbers, put, string, terms, token
from fhir_server.store.operations import Write

UCUM = "http://unitsofmeasure.org"
ODD = "50%_\\'\"*[a-z]?"
"""A text in which every character that a database's pattern language gives a meaning occurs."""


def patient(id: str, names: tuple[str, ...], identifiers: tuple[str, ...] = (), **rest: tuple[str, ...]) -> Write:
    """A Patient with names and identifiers."""
    entries = {"name": map(string, names), "identifier": identifiers, **rest}
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
    put("Library/l1", terms(url=["urn:l"], version=[token("1")], name=[string("one")])),
    put("Library/l2", terms(url=["urn:l"], version=[token("2")], name=[string("two")])),
    put("Library/l3", terms(url=["l"], name=[string("one")])),
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


def _name(*clauses: str) -> q.Clause:
    return q.Equals("name", tuple(map(string, clauses)))


def _match_date(*tests: q.Bound) -> q.Clause:
    return q.DateRange("date", tests)


def _match_value(*tests: q.Bound, key: str = "", unit: tuple[str | None, str] | None = None) -> q.Clause:
    return q.NumberRange("value", tests, key, unit)


def _holds(text: str) -> q.Clause:
    """What a store may have an index of."""
    return q.Contains("name", text, strings=True)


CODE_A = q.Equals("code", (token("a"),))
FEMALE = q.Equals("gender", (token("female"),))

Expectation = tuple[str, q.Clause, str]
"""(resource type, clause, ids in order, separated by spaces)."""

TERMS: tuple[Expectation, ...] = (
    ("Patient", q.Equals("identifier", (token("1", "urn:a"),)), "ann"),
    ("Patient", q.Equals("identifier", (token("1", "urn:a"), token("1", "urn:b"))), "ann ann2"),
    ("Patient", q.Equals("identifier", (token("1"),)), "bob"),
    ("Patient", q.Equals("identifier", (token("a", "urn:a"),)), ""),
    ("Patient", q.Equals("identifier", ()), ""),
    ("Patient", q.Equals("identifier", (token("A", "urn:a"), token("A", "urn:a"))), "cid"),
    ("Patient", q.Equals("unknown", (token("1"),)), ""),
    ("Patient", q.Equals("name", (token("1", "urn:a"),)), ""),
    ("Observation", q.Equals("identifier", (token("1", "urn:a"),)), ""),
    ("Patient", _name("Ann"), "ann"),
    ("Patient", _name("ANN"), ""),
    ("Patient", _name("Müller", "Dan", "Nobody"), "ann dan"),
    ("Encounter", q.Equals("date", (COMPOSITE.join((token("a"), token("b"))),)), "p5"),
    ("Patient", q.StartsWith("name", "ann"), "ann ann2"),
    ("Patient", q.StartsWith("name", "ann" + SEPARATOR), "ann"),
    ("Patient", q.StartsWith("name", "Ann"), ""),
    ("Patient", q.StartsWith("name", "an"), "ann ann2"),
    ("Patient", q.StartsWith("name", "x\U0010ffff"), "bob"),
    ("Patient", q.StartsWith("name", "x\ud7ff"), "bob"),
    ("Patient", q.StartsWith("name", "\U0010ffff"), ""),
    ("Patient", q.StartsWith("name", "50%_"), "ann2"),
    ("Patient", q.StartsWith("name", "5_%"), ""),
    ("Patient", q.StartsWith("name", "5*"), ""),
    ("Patient", q.StartsWith("name", ""), "ann ann2 bob dan"),
    ("Patient", q.StartsWith("name", "an", few=True), "ann ann2"),
    ("Patient", q.StartsWith("name", "no", few=True), ""),
    ("Patient", q.StartsWith("name", "\U0010ffff", few=True), ""),
    ("Patient", q.Or((q.StartsWith("name", "x"), q.StartsWith("nothing", "an", few=True))), "bob"),
    ("Patient", q.Or((q.StartsWith("nothing", "an"), q.StartsWith("name", "an", few=True))), "ann ann2"),
    ("Patient", q.StartsWith("identifier", "1" + SEPARATOR), "ann ann2 bob"),
    ("Patient", q.StartsWith("identifier", "1"), "ann ann2 bob"),
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
    ("Patient", q.Not(_holds("nnabe")), "ann bob cid dan"),
    # Of terms that are no strings nothing is promised but the answer.
    ("Patient", q.Contains("name", "nnabe"), "ann2"),
    ("Patient", q.Contains("link", "ient/b"), "dan"),
    ("Patient", q.Contains("identifier", "12"), "ann2"),
    ("Patient", q.Contains("identifier", "urn"), ""),
    ("Patient", q.EndsWith("identifier", SEPARATOR + "urn:a"), "ann ann2 cid"),
    ("Patient", q.EndsWith("identifier", SEPARATOR + "URN:A"), ""),
    ("Patient", q.EndsWith("identifier", SEPARATOR), "bob"),
    ("Patient", q.EndsWith("identifier", SEPARATOR + "urn"), "bob"),
    ("Patient", q.EndsWith("identifier", "_rn:a"), ""),
    ("Patient", q.EndsWith("name", SEPARATOR + ODD), "ann2"),
    ("Patient", q.Present("gender"), "ann bob"),
    ("Patient", q.Present("name"), "ann ann2 bob dan"),
    ("Patient", q.Present("unknown"), ""),
    ("Observation", q.Present("value"), "n1 n2 n3 n4"),
    ("Encounter", q.Present("date"), "p1 p2 p3 p4 p5"),
    ("Patient", q.Ids(("ann", "dan", "never", "Ann")), "ann dan"),
    ("Patient", q.Ids(("dan", "dan")), "dan"),
    ("Patient", q.Ids(()), ""),
    ("Group", q.Ids(("ann",)), "ann"),
)

RANGES: tuple[Expectation, ...] = (
    ("Encounter", _match_date(), "p1 p2 p3 p4"),
    ("Encounter", _match_date(q.Bound("low", "ge", 10), q.Bound("high", "le", 20)), "p1 p2"),
    ("Encounter", _match_date(q.Bound("low", "gt", 10), q.Bound("high", "lt", 20)), "p2"),
    ("Encounter", _match_date(q.Bound("high", "gt", 20)), "p2 p4"),
    ("Encounter", _match_date(q.Bound("high", "ge", 20)), "p1 p2 p4"),
    ("Encounter", _match_date(q.Bound("low", "lt", 15)), "p1 p3"),
    ("Encounter", _match_date(q.Bound("low", "le", 15)), "p1 p2 p3"),
    ("Encounter", _match_date(q.Bound("high", "ge", 200), q.Bound("low", "le", 100)), "p2"),
    ("Encounter", _match_date(q.Bound("low", "le", 15), q.Bound("high", "ge", 100)), ""),
    ("Encounter", q.And((_match_date(q.Bound("low", "le", 15)), _match_date(q.Bound("high", "ge", 100)))), "p2"),
    ("Encounter", _match_date(q.Bound("low", "gt", 20), q.Bound("low", "lt", 100)), ""),
    ("Encounter", _match_date(q.Bound("high", "ge", OPEN_HIGH)), "p4"),
    ("Encounter", _match_date(q.Bound("low", "le", OPEN_LOW)), "p3"),
    ("Encounter", q.DateRange("period", ()), ""),
    ("Encounter", q.Or((_match_date(q.Bound("high", "lt", 13)), _match_date(q.Bound("low", "gt", 140)))), "p3 p4"),
    ("Encounter", q.Not(_match_date(q.Bound("low", "ge", 10), q.Bound("high", "le", 20))), "p3 p4 p5"),
    ("Observation", _match_value(), "n1 n2 n4"),
    ("Observation", _match_value(q.Bound("low", "ge", 5.0)), "n1 n2"),
    ("Observation", _match_value(q.Bound("low", "gt", 5)), "n1"),
    ("Observation", _match_value(q.Bound("low", "ge", 4.5), q.Bound("high", "lt", 5.5)), "n2"),
    ("Observation", _match_value(q.Bound("low", "gt", 2), q.Bound("high", "lt", 5)), ""),
    ("Observation", _match_value(q.Bound("low", "le", -3.5)), "n4"),
    ("Observation", _match_value(q.Bound("high", "ge", 2.5), q.Bound("low", "le", 1.0)), "n4"),
    ("Observation", _match_value(q.Bound("low", "ge", 1.0), unit=(UCUM, "mg")), "n1"),
    ("Observation", _match_value(q.Bound("low", "ge", 2.0), unit=(UCUM, "mg")), ""),
    ("Observation", _match_value(unit=(None, "mg")), "n1 n2 n4"),
    ("Observation", _match_value(unit=(None, "milligram")), "n1"),
    ("Observation", _match_value(unit=(None, "MG")), ""),
    ("Observation", _match_value(unit=(UCUM, "milligram")), ""),
    ("Observation", _match_value(unit=("urn:x", "mg")), "n4"),
    ("Observation", _match_value(unit=(None, UCUM)), ""),
    ("Observation", _match_value(unit=(None, "m")), ""),
    ("Observation", _match_value(key=token("8480-6")), "n2 n3"),
    ("Observation", _match_value(q.Bound("low", "ge", 100), key=token("8480-6")), "n2"),
    ("Observation", _match_value(q.Bound("low", "ge", 100), key=token("8462-4")), "n3"),
    ("Observation", _match_value(key=token("8480-6"), unit=(None, "mg")), "n3"),
    ("Observation", _match_value(key="8480-6"), ""),
    ("Observation", q.NumberRange("quantity", ()), ""),
)

FOLLOWED: tuple[Expectation, ...] = (
    ("Observation", q.Chain("subject", "Patient", q.EVERYTHING), "s1 s2 s3"),
    ("Observation", q.Chain("subject", "Patient", q.NOTHING), ""),
    ("Observation", q.Chain("subject", "Group", q.EVERYTHING), "s4"),
    ("Observation", q.Chain("subject", "Group", CODE_A), "s4"),
    ("Observation", q.Chain("subject", "Patient", FEMALE), "s1 s2"),
    ("Observation", q.Chain("subject", "Patient", q.Not(FEMALE)), "s2 s3"),
    ("Observation", q.Not(q.Chain("subject", "Patient", FEMALE)), "n1 n2 n3 n4 s3 s4"),
    ("Observation", q.And((CODE_A, q.Chain("subject", "Patient", q.StartsWith("name", "ann")))), "s1"),
    ("Observation", q.Or((q.Chain("performer", "Patient", _name("bob")), q.Ids(("s4",)))), "s3 s4"),
    ("Observation", q.Chain("subject", "Patient", q.Ids(("bob",))), "s2"),
    ("Observation", q.Chain("subject", "Patient", q.And((FEMALE, _name("bob")))), ""),
    ("Observation", q.And((q.Chain("subject", "Patient", FEMALE), q.Chain("subject", "Patient", _name("bob")))), "s2"),
    ("Observation", q.Chain("part", "Observation", q.Chain("subject", "Patient", _name("bob"))), "s1"),
    ("Patient", q.Chain("link", "Patient", FEMALE), "cid"),
    ("Patient", q.Chain("link", "Patient", q.EVERYTHING), "cid dan"),
    ("Patient", q.Chain("link", "Encounter", q.EVERYTHING), ""),
    ("Patient", q.Has("Observation", "subject", CODE_A), "ann cid"),
    ("Patient", q.Has("Observation", "subject", q.EVERYTHING), "ann bob cid"),
    ("Patient", q.Has("Observation", "subject", q.NOTHING), ""),
    ("Patient", q.Has("Observation", "performer", CODE_A), "bob"),
    ("Group", q.Has("Observation", "subject", CODE_A), "ann"),
    ("Patient", q.Not(q.Has("Observation", "subject", CODE_A)), "ann2 bob dan"),
    ("Patient", q.And((q.Present("gender"), q.Has("Observation", "subject", CODE_A))), "ann"),
    ("Patient", q.Has("Observation", "subject", q.Has("Observation", "part", CODE_A)), "ann bob"),
    ("Patient", q.Has("Observation", "subject", q.Chain("subject", "Patient", _name("bob"))), "ann bob"),
    ("Patient", q.Has("Group", "member", q.Has("Observation", "subject", q.EVERYTHING)), "dan"),
    ("Patient", q.Has("Patient", "link", q.EVERYTHING), "ann bob"),
    ("Observation", q.Chain("subject", "Patient", q.Has("Patient", "link", q.Ids(("dan",)))), "s2"),
    ("Observation", q.Chain("subject", "Patient", q.Has("Observation", "performer", q.EVERYTHING)), "s2"),
)

_SUBJECT = q.Present("subject")


def _every(parameter: str, **wheres: q.Clause) -> q.Clause:
    return q.Every(parameter, tuple(q.Scope(type, where) for type, where in wheres.items()))


EVERY: tuple[Expectation, ...] = (
    ("Observation", _every("subject", Patient=q.EVERYTHING), "n1 n2 n3 n4 s1 s2 s3"),
    ("Observation", _every("subject"), "n1 n2 n3 n4"),
    ("Observation", _every("subject", Group=q.EVERYTHING, Patient=q.EVERYTHING), "n1 n2 n3 n4 s1 s2 s3"),
    ("Observation", q.And((_SUBJECT, _every("subject", Patient=FEMALE))), "s1"),
    ("Observation", q.And((_SUBJECT, _every("subject", Patient=q.Not(_name("bob"))))), "s1 s3"),
    ("Observation", q.And((_SUBJECT, _every("subject", Patient=q.NOTHING))), ""),
    ("Observation", q.Not(_every("subject", Patient=q.EVERYTHING)), "s4"),
    ("Observation", q.Or((_every("subject", Patient=q.NOTHING), CODE_A)), "n1 n2 n3 n4 s1 s3 s4"),
    ("Observation", q.And((CODE_A, q.Or((q.Ids(("s4",)), _every("subject", Patient=FEMALE))))), "s1 s4"),
    ("Observation", _every("part", Observation=_every("subject", Patient=FEMALE)), "n1 n2 n3 n4 s2 s3 s4"),
    ("Observation", q.And((_SUBJECT, _every("subject", Patient=q.Has("Patient", "link", q.EVERYTHING)))), "s1 s2"),
    ("Patient", q.Has("Observation", "subject", _every("subject", Patient=FEMALE)), "ann"),
    ("Patient", q.And((q.Present("link"), _every("link", Patient=q.EVERYTHING, Encounter=q.EVERYTHING))), ""),
    ("Patient", _every("link", Patient=q.EVERYTHING), "ann ann2 bob"),
    ("Practitioner", _every("link"), ""),
)

_ONE, _TWO = q.Equals("name", (string("one"),)), q.Equals("name", (string("two"),))
_A, _B = q.Equals("status", (token("a"),)), q.Equals("status", (token("b"),))

NAMED: tuple[Expectation, ...] = (
    ("Measure", q.CanonicalChain("library", "Library", q.EVERYTHING), "m1 m2"),
    ("Measure", q.CanonicalChain("library", "Library", q.NOTHING), ""),
    ("Measure", q.CanonicalChain("library", "Library", _ONE), "m1"),
    ("Measure", q.CanonicalChain("library", "Library", _TWO), "m1 m2"),
    ("Measure", q.CanonicalChain("library", "Measure", q.EVERYTHING), ""),
    ("Measure", q.And((_A, q.CanonicalChain("library", "Library", _TWO))), "m1"),
    ("Measure", q.Not(q.CanonicalChain("library", "Library", _ONE)), "m2 m3 m4"),
    ("Measure", q.Chain("library", "Library", _ONE), "m2"),
    ("Measure", q.Or((q.Chain("library", "Library", _ONE), q.CanonicalChain("library", "Library", _ONE))), "m1 m2"),
    ("Measure", q.StartsWith("library", f"urn:l{SEPARATOR}"), "m1 m2 m3"),
    ("Library", q.CanonicalHas("Measure", "library", q.EVERYTHING), "l1 l2"),
    ("Library", q.CanonicalHas("Measure", "library", q.NOTHING), ""),
    ("Library", q.CanonicalHas("Measure", "library", _A), "l1 l2"),
    ("Library", q.CanonicalHas("Measure", "library", _B), "l2"),
    ("Library", q.And((_ONE, q.CanonicalHas("Measure", "library", _A))), "l1"),
    ("Library", q.Not(q.CanonicalHas("Measure", "library", _B)), "l1 l3"),
    ("Library", q.Has("Measure", "library", q.EVERYTHING), "l3"),
    ("Measure", q.CanonicalChain("library", "Library", q.CanonicalHas("Measure", "library", _B)), "m1 m2"),
)


def _pair(code: str, *tests: q.Bound) -> q.Clause:
    return q.Within("pair", q.And((q.Equals("code", (token(code),)), q.NumberRange("value", tests))))


WITHIN: tuple[Expectation, ...] = (
    ("Account", _pair("a"), "a1"),
    ("Account", _pair("b"), "a1 a2"),
    ("Account", _pair("b", q.Bound("low", "ge", 2)), "a1"),
    ("Account", _pair("a", q.Bound("low", "ge", 2)), ""),
    ("Account", q.Not(_pair("b", q.Bound("low", "ge", 2))), "a2"),
    ("Account", q.Within("pair", q.EVERYTHING), "a1 a2"),
    ("Account", q.Within("other", q.EVERYTHING), ""),
    ("Patient", _pair("a"), ""),
)

COMBINED: tuple[Expectation, ...] = (
    ("Patient", q.EVERYTHING, "ann ann2 bob cid dan"),
    ("Patient", q.NOTHING, ""),
    ("Patient", q.Not(q.EVERYTHING), ""),
    ("Patient", q.Not(q.NOTHING), "ann ann2 bob cid dan"),
    ("Practitioner", q.EVERYTHING, ""),
    ("Practitioner", q.Not(q.NOTHING), ""),
    ("Patient", q.Not(q.Present("gender")), "ann2 cid dan"),
    ("Patient", q.Not(q.Equals("gender", (token("male"),))), "ann ann2 cid dan"),
    ("Patient", q.And((q.Present("name"), q.Not(q.Present("gender")))), "ann2 dan"),
    ("Patient", q.And((q.EVERYTHING, FEMALE, q.And())), "ann"),
    ("Patient", q.And((FEMALE, q.NOTHING)), ""),
    ("Patient", q.Or((FEMALE, q.NOTHING, q.Ids(("cid",)))), "ann cid"),
    ("Patient", q.Or((FEMALE, q.Not(FEMALE))), "ann ann2 bob cid dan"),
    ("Patient", q.Or((q.EVERYTHING, FEMALE)), "ann ann2 bob cid dan"),
    ("Patient", q.And((q.Or((_name("Ann"), _name("Dan"))), q.Or((q.Present("link"), q.NOTHING)))), "dan"),
    ("Patient", q.Not(q.And((q.Present("name"), q.Not(q.Or((FEMALE, q.Present("link"))))))), "ann cid dan"),
    ("Patient", q.Not(q.Not(FEMALE)), "ann"),
    ("Patient", q.And((q.Equals("name", (string("Ann"),)), q.Equals("name", (string("Müller"),)))), "ann"),
    ("Patient", q.And((q.Ids(("ann", "bob")), q.Not(q.Ids(("bob",))))), "ann"),
)

CLAUSES = TERMS + RANGES + FOLLOWED + EVERY + NAMED + WITHIN + COMBINED
