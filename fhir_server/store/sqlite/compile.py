"""Clauses of the search tree as SQL: `probe` tests one resource, `drive` finds the resources (https://hl7.org/fhir/R4/search.html).

Every value is a parameter, so that few statement texts serve all searches. Joins are CROSS JOINs and indexes are
named, so that SQLite keeps the order chosen here. A probe reads single index rows of the resource, or the entries'
JSON where an index cannot be entered by resource.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fhir_server.search.entries import SEPARATOR, URL
from fhir_server.search.query import (
    And,
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
    LastUpdated,
    Lineage,
    Near,
    Not,
    NumberRange,
    Or,
    Present,
    StartsWith,
    TermRange,
    Words,
)
from fhir_server.store.sqlite import canonicals, trigrams
from fhir_server.store.sqlite.clauses import conjunction, drivable, found_alive, needs_row, rank
from fhir_server.store.sqlite.conditions import Sql, both, bounds, one_of, text_condition
from fhir_server.store.sqlite.context import COLUMNS, Context, path
from fhir_server.store.sqlite.fulltext import drive_words, probe_words
from fhir_server.store.sqlite.hierarchy import drive_lineage
from fhir_server.store.sqlite.intervals import drive_date, drive_dates
from fhir_server.store.sqlite.near import drive_near
from fhir_server.store.sqlite.quantities import drive_number, probe_number
from fhir_server.store.sqlite.rows import is_local
from fhir_server.store.sqlite.statements import as_json

_MANY_TERMS = 16

TextClause = StartsWith | Contains | EndsWith | TermRange


# --- probes: does this resource match? ------------------------------------------------------------------------------


def probe(clause: Clause, type: str, alias: str, context: Context) -> Sql:
    """A condition on the row `alias` of `resource`, which is of `type`."""
    if clause in context.small:
        found = drive(clause, type, context)
        if found is not None:
            return f"{alias}.rid IN ({found[0]})", found[1]
    return _PROBES[clause.__class__](clause, type, alias, context)


def _probe_equals(clause: Equals, type: str, alias: str, context: Context) -> Sql:
    if len(clause.terms) > _MANY_TERMS:  # the resource's own few are looked up
        condition: Sql = "j.value IN (SELECT value FROM json_each(?))", (as_json(clause.terms),)
        text, values = both((_in_json(part, clause, alias, condition) for part in _term_parts(clause.terms)), "OR")
        return f"({text})", values
    tp = context.tp(type, clause.parameter)
    found = [
        (f"EXISTS (SELECT 1 FROM {table} WHERE tp = ? AND {condition} AND rid = {alias}.rid)", (tp, *values))
        for table, condition, values in _equal(clause.terms)
    ]
    text, all_values = both(found, "OR")
    return (f"({text})" if len(found) > 1 else text), all_values


def _term_parts(terms: Sequence[str]) -> str:
    """The parts of the entries where such terms can be: beside a local reference, a parameter's other texts are too."""
    if all(map(is_local, terms)):
        return "l"
    return "t" if all(SEPARATOR in term for term in terms) else "tl"


def _equal(terms: Sequence[str]) -> list[tuple[str, str, tuple[Any, ...]]]:
    """The tables where terms are, and the conditions that find them: local references are links."""
    links = [term for term in terms if is_local(term)]
    texts = [term for term in terms if not is_local(term)] if links else terms
    found: list[tuple[str, str, tuple[Any, ...]]] = []
    if texts or not links:
        found.append(("term", *one_of("value", texts)))
    if len(links) == 1:
        found.append(("link", "target = (SELECT rid FROM resource WHERE ref = ?)", (links[0],)))
    elif links:
        targets = "SELECT t.rid FROM json_each(?) j CROSS JOIN resource t WHERE t.ref = j.value"
        found.append(("link", f"target IN ({targets})", (as_json(links),)))
    return found


def _in_json(part: str, clause: Any, alias: str, condition: Sql) -> Sql:
    """Some entry of the clause's parameter, `j.value`, fulfils a condition."""
    source = f"entries x CROSS JOIN json_each(x.{COLUMNS[part]}, ?) j"
    values = (path(part, clause.parameter), *condition[1])
    return f"EXISTS (SELECT 1 FROM {source} WHERE x.rid = {alias}.rid AND {condition[0]})", values


def _probe_text(clause: TextClause, type: str, alias: str, context: Context) -> Sql:
    condition = text_condition(clause, "j.value")
    text, values = both((_in_json(part, clause, alias, condition) for part in _text_parts(clause)), "OR")
    return f"({text})", values


def _text_parts(clause: TextClause) -> str:
    """The parts of the entries where such a text can be: no local reference contains a separator."""
    if isinstance(clause, Contains):
        return "t" if clause.strings else "tl"
    return "t" if isinstance(clause, StartsWith) and SEPARATOR in clause.prefix else "tl"


def _probe_date(clause: DateRange, type: str, alias: str, context: Context) -> Sql:
    return _in_json("d", clause, alias, _interval(clause))


def _interval(clause: DateRange) -> Sql:
    return bounds(clause.bounds, "json_extract(j.value, '$[0]')", "json_extract(j.value, '$[1]')", int)


def _probe_present(clause: Present, type: str, alias: str, context: Context) -> Sql:
    where = tuple(path(part, clause.parameter) for part in COLUMNS)
    text = " OR ".join(f"json_type(x.{column}, ?) IS NOT NULL" for column in COLUMNS.values())
    return f"EXISTS (SELECT 1 FROM entries x WHERE x.rid = {alias}.rid AND ({text}))", where


def _probe_ids(clause: Ids, type: str, alias: str, context: Context) -> Sql:
    return one_of(f"{alias}.ref", [f"{type}/{id}" for id in clause.ids])


def _probe_updated(clause: LastUpdated, type: str, alias: str, context: Context) -> Sql:
    return bounds(clause.bounds, f"{alias}.updated", f"{alias}.updated", int)


def _probe_chain(clause: Chain, type: str, alias: str, context: Context) -> Sql:
    target = f"{alias}t"
    if clause in context.near:
        found, values = select("b.rid", clause.where, clause.type, "b", context)
        listed = f"SELECT t.ref FROM ({found}) y CROSS JOIN resource t WHERE t.rid = y.rid"
        return _in_json("l", clause, alias, (f"j.value IN ({listed})", values))
    inner, values = probe(clause.where, clause.type, target, context)
    text = (
        f"EXISTS (SELECT 1 FROM entries x CROSS JOIN json_each(x.quick, ?) j CROSS JOIN resource {target}"
        f" WHERE x.rid = {alias}.rid AND j.value >= ? AND j.value < ? AND {target}.ref = j.value"
        f"{'' if found_alive(clause.where) else f' AND {target}.deleted = 0'} AND {inner})"
    )
    # "0" follows "/"
    return text, (path("l", clause.parameter), f"{clause.type}/", f"{clause.type}0", *values)


def _probe_has(clause: Has, type: str, alias: str, context: Context) -> Sql:
    source = f"{alias}s"
    inner, values = probe(clause.where, clause.type, source, context)
    text = (
        f"EXISTS (SELECT 1 FROM link x CROSS JOIN resource {source}"
        f" WHERE x.tp = ? AND x.target = {alias}.rid AND {source}.rid = x.rid AND {inner})"
    )
    return text, (context.tp(clause.type, clause.parameter), *values)


def _probe_canonical_chain(clause: CanonicalChain, type: str, alias: str, context: Context) -> Sql:
    target = f"{alias}t"
    inner = probe(clause.where, clause.type, target, context)
    values = path("t", clause.parameter), context.tp(clause.type, URL)
    return canonicals.probe_chain(alias, target, values, inner)


def _probe_canonical_has(clause: CanonicalHas, type: str, alias: str, context: Context) -> Sql:
    source = f"{alias}s"
    inner = probe(clause.where, clause.type, source, context)
    return canonicals.probe_has(alias, source, context.tp(clause.type, clause.parameter), inner)


def _probe_listed(clause: Near | Lineage, type: str, alias: str, context: Context) -> Sql:
    """By reading what the clause finds, once for all resources that are tested."""
    found = drive_near(clause, type, context) if isinstance(clause, Near) else drive_lineage(clause, type, context)
    return f"{alias}.rid IN ({found[0]})", found[1]


def _probe_and(clause: And, type: str, alias: str, context: Context) -> Sql:
    if not clause.clauses:
        return "1", ()
    text, values = both(probe(part, type, alias, context) for part in clause.clauses)
    return f"({text})", values


def _probe_or(clause: Or, type: str, alias: str, context: Context) -> Sql:
    if not clause.clauses:
        return "?", (0,)  # a literal 0 lets SQLite drop the rest of the condition, then it misses what an index needs
    first = clause.clauses[0]
    dates = [part for part in clause.clauses if isinstance(part, DateRange) and part not in context.small]
    if isinstance(first, DateRange) and len(dates) == len(clause.clauses) == _same_parameter(dates):
        text, values = both(map(_interval, dates), "OR")
        return _in_json("d", first, alias, (f"({text})", values))
    text, values = both((probe(part, type, alias, context) for part in clause.clauses), "OR")
    return f"({text})", values


def _same_parameter(dates: Sequence[DateRange]) -> int:
    return sum(part.parameter == dates[0].parameter for part in dates)


def _probe_not(clause: Not, type: str, alias: str, context: Context) -> Sql:
    text, values = probe(clause.clause, type, alias, context)
    return f"NOT ({text})", values


_PROBES: dict[type, Callable[..., Sql]] = {
    Equals: _probe_equals,
    StartsWith: _probe_text,
    Contains: _probe_text,
    EndsWith: _probe_text,
    TermRange: _probe_text,
    Words: probe_words,
    DateRange: _probe_date,
    NumberRange: probe_number,
    Near: _probe_listed,
    Present: _probe_present,
    Ids: _probe_ids,
    LastUpdated: _probe_updated,
    Chain: _probe_chain,
    Has: _probe_has,
    CanonicalChain: _probe_canonical_chain,
    CanonicalHas: _probe_canonical_has,
    Lineage: _probe_listed,
    And: _probe_and,
    Or: _probe_or,
    Not: _probe_not,
}


# --- drivers: which resources match? --------------------------------------------------------------------------------


def drive(clause: Clause, type: str, context: Context) -> Sql | None:
    """A SELECT of the distinct `rid`s of the current resources of `type` that match; None if only probing can tell."""
    found = _DRIVES.get(clause.__class__)
    return found(clause, type, context) if found else None


def _union(parts: Sequence[Sql]) -> Sql:
    """The distinct `rid`s of several SELECTs; a reader that stops early lets them stop too, which UNION would not."""
    text, values = both(parts, "UNION ALL")
    return f"SELECT DISTINCT rid FROM ({text})", values


def _drive_equals(clause: Equals, type: str, context: Context) -> Sql:
    tp = context.tp(type, clause.parameter)
    found: list[Sql] = [
        (f"SELECT rid FROM {table} WHERE tp = ? AND {condition}", (tp, *values))
        for table, condition, values in _equal(clause.terms)
    ]
    return found[0] if len(clause.terms) == 1 else _union(found)


def _drive_text(clause: TextClause, type: str, context: Context) -> Sql:
    tp = context.tp(type, clause.parameter)
    if isinstance(clause, Contains) and trigrams.applies(clause):
        source, values = trigrams.values(clause, tp, context.connection)
        value = f"t.tp = ? AND t.value IN (SELECT g.value {source})"
        return f"SELECT DISTINCT t.rid AS rid FROM term t WHERE {value}", (tp, *values)
    condition, values = text_condition(clause, "value")
    linked, its_values = text_condition(clause, "t.ref")
    found: list[Sql] = [(f"SELECT rid FROM term WHERE tp = ? AND {condition}", (tp, *values))]
    if "l" in _text_parts(clause):
        links = f"SELECT x.rid FROM link x CROSS JOIN resource t WHERE x.tp = ? AND t.rid = x.target AND {linked}"
        found.append((links, (tp, *its_values)))
    return _union(found)


def _drive_present(clause: Present, type: str, context: Context) -> Sql:
    tp = context.tp(type, clause.parameter)
    tables = ("term", "link", "date", "number")
    return _union([(f"SELECT rid FROM {table} WHERE tp = ?", (tp,)) for table in tables])


def _drive_ids(clause: Ids, type: str, context: Context) -> Sql:
    found = as_json(dict.fromkeys(f"{type}/{id}" for id in clause.ids))
    text = "SELECT r.rid FROM json_each(?) j CROSS JOIN resource r WHERE r.ref = j.value AND r.deleted = 0"
    return text, (found,)


def _drive_updated(clause: LastUpdated, type: str, context: Context) -> Sql:
    condition, values = bounds(clause.bounds, "updated", "updated", int)
    text = f"SELECT rid FROM resource INDEXED BY resource_updated WHERE type = ? AND deleted = 0 AND {condition}"
    return text, (context.code(type), *values)


def select(columns: str, clause: Clause, type: str, alias: str, context: Context) -> Sql:
    """A SELECT of columns of the row `alias` of `resource` for each match, entered by the likely cheapest clause."""
    parts = conjunction(clause)
    best = min((part for part in parts if drivable(part)), key=rank, default=None)
    driver = drive(best, type, context) if best is not None and columns == f"{alias}.rid" else None
    if driver is not None and not any(map(needs_row, parts)):
        rest, values = both(probe(part, type, alias, context) for part in parts if part is not best)
        return f"SELECT {columns} FROM ({driver[0]}) {alias} WHERE {rest or '1'}", (*driver[1], *values)
    source, condition = entered(parts, best, type, alias, context)
    return f"SELECT {columns} FROM {source[0]} WHERE {condition[0]}", (*source[1], *condition[1])


def entered(parts: Sequence[Clause], by: Clause | None, type: str, alias: str, context: Context) -> tuple[Sql, Sql]:
    """The FROM and WHERE of the matches of all `parts`, entered by one of them (None: by all resources of the type)."""
    driver = drive(by, type, context) if by is not None else None
    if driver is None:
        rest = [probe(part, type, alias, context) for part in parts if part is not by]
        everything: Sql = (f"{alias}.type = ? AND {alias}.deleted = 0", (context.code(type),))
        return (f"resource {alias} INDEXED BY resource_updated", ()), both((everything, *rest))
    # Asked of the driver's own rows where that is possible: only what passes is looked up in `resource`.
    rest = [probe(part, type, alias if needs_row(part) else f"{alias}c", context) for part in parts if part is not by]
    source = f"({driver[0]}) {alias}c CROSS JOIN resource {alias}"
    return (source, driver[1]), both(((f"{alias}.rid = {alias}c.rid", ()), *rest))


def _drive_chain(clause: Chain, type: str, context: Context) -> Sql:
    inner, values = select("b.rid", clause.where, clause.type, "b", context)
    text = f"SELECT DISTINCT x.rid FROM ({inner}) y CROSS JOIN link x WHERE x.tp = ? AND x.target = y.rid"
    return text, (*values, context.tp(type, clause.parameter))


def _drive_has(clause: Has, type: str, context: Context) -> Sql:
    inner, values = select("b.rid", clause.where, clause.type, "b", context)
    text = (
        f"SELECT DISTINCT t.rid FROM ({inner}) y CROSS JOIN entries e CROSS JOIN json_each(e.quick, ?) j"
        " CROSS JOIN resource t WHERE e.rid = y.rid AND t.ref = j.value AND t.type = ? AND t.deleted = 0"
    )
    return text, (*values, path("l", clause.parameter), context.code(type))


def _drive_canonical_chain(clause: CanonicalChain, type: str, context: Context) -> Sql:
    inner = select("b.rid", clause.where, clause.type, "b", context)
    return canonicals.drive_chain(context.tp(type, clause.parameter), inner)


def _drive_canonical_has(clause: CanonicalHas, type: str, context: Context) -> Sql:
    inner = select("b.rid", clause.where, clause.type, "b", context)
    return canonicals.drive_has((path("t", clause.parameter), context.tp(type, URL)), inner)


def _drive_or(clause: Or, type: str, context: Context) -> Sql | None:
    dates = [part for part in clause.clauses if isinstance(part, DateRange)]
    if dates and len(dates) == len(clause.clauses) == _same_parameter(dates):
        merged = drive_dates(dates, type, context)
        if merged is not None:
            return merged
    parts = [drive(part, type, context) if drivable(part) else None for part in clause.clauses]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    return _union([(f"SELECT rid FROM ({text})", values) for text, values in known])


def _drive_and(clause: And, type: str, context: Context) -> Sql | None:
    return select("q.rid", clause, type, "q", context)


_DRIVES: dict[type, Callable[..., Sql | None]] = {
    Equals: _drive_equals,
    StartsWith: _drive_text,
    Contains: _drive_text,
    EndsWith: _drive_text,
    TermRange: _drive_text,
    Words: drive_words,
    DateRange: drive_date,
    NumberRange: drive_number,
    Near: drive_near,
    Present: _drive_present,
    Ids: _drive_ids,
    LastUpdated: _drive_updated,
    Chain: _drive_chain,
    Has: _drive_has,
    CanonicalChain: _drive_canonical_chain,
    CanonicalHas: _drive_canonical_has,
    Lineage: drive_lineage,
    Or: _drive_or,
    And: _drive_and,
}
