"""Clauses of the search tree as SQL: a probe tests one resource, a SELECT lists the resources (https://hl7.org/fhir/R4/search.html).

Every value is a parameter, so that few statement texts serve all searches. Joins are CROSS JOINs and indexes are
named, so that SQLite keeps the order chosen here. A probe reads single index rows of the resource, or the entries'
JSON where an index cannot be entered by resource.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fhir_server.search import query as q
from fhir_server.search.entries import SEPARATOR, URL
from fhir_server.store.sqlite import trigrams
from fhir_server.store.sqlite.clauses import has_index, implies_current, needs_row, rank_clause, split_conjunction
from fhir_server.store.sqlite.conditions import (
    Sql,
    TextClause,
    compile_interval,
    compile_membership,
    compile_text,
    join,
)
from fhir_server.store.sqlite.context import COLUMNS, Context, format_path
from fhir_server.store.sqlite.fulltext import probe_words, select_words
from fhir_server.store.sqlite.hierarchy import select_lineage
from fhir_server.store.sqlite.intervals import select_date, select_dates
from fhir_server.store.sqlite.numbers import probe_number, select_near, select_number
from fhir_server.store.sqlite.rows import is_local
from fhir_server.store.sqlite.statements import format_json

_MANY_TERMS = 16

# A canonical is indexed as a term, URL and version, not as a link: what it names may be stored later or under another
# id (https://hl7.org/fhir/R4/references.html#canonical).
_URL = "json_extract(e.terms, '$.t.url[0]')"
_VERSION = "json_extract(e.terms, '$.t.version[0]')"
_NAMES = f"({_URL} || char(31), {_URL} || char(31) || substr({_VERSION}, 1, instr({_VERSION}, char(31)) - 1))"
# The term {0} names the resource with the row `e` of `entries`: it is the resource's URL, or that with its version.
_IS_NAMED = f"instr({_URL}, ':') > 0 AND {{0}} IN {_NAMES}"
# The row `u` of `term` is that of the URL in the canonical `j.value`.
_HAS_URL = "u.tp = ? AND u.value = substr(j.value, 1, instr(j.value, char(31)) - 1)"


# --- probes: does this resource match? ------------------------------------------------------------------------------


def probe_clause(clause: q.Clause, type: str, alias: str, context: Context) -> Sql:
    """A condition on the row `alias` of `resource`, which is of `type`."""
    if context.read_whole and clause in context.read_whole:
        listed = select_clause(clause, type, context)
        if listed is not None:
            return f"{alias}.rid IN ({listed[0]})", listed[1]
    return _COMPILERS[clause.__class__][0](clause, type, alias, context)


def _probe_equals(clause: q.Equals, type: str, alias: str, context: Context) -> Sql:
    if len(clause.terms) > _MANY_TERMS:  # the resource's own few are looked up
        condition: Sql = "j.value IN (SELECT value FROM json_each(?))", (format_json(clause.terms),)
        return _probe_parts(_find_term_parts(clause.terms), clause, alias, condition)
    tp, codes = context.compile_code(type, clause.parameter)
    probes = [
        (f"EXISTS (SELECT 1 FROM {table} WHERE tp = {tp} AND {condition} AND rid = {alias}.rid)", (*codes, *values))
        for table, condition, values in _compile_terms(clause.terms)
    ]
    text, all_values = join(probes, "OR")
    return (f"({text})" if len(probes) > 1 else text), all_values


def _find_term_parts(terms: Sequence[str]) -> str:
    """The parts of the entries where such terms can be: beside a local reference, a parameter's other texts are too."""
    if all(map(is_local, terms)):
        return "l"
    return "t" if all(SEPARATOR in term for term in terms) else "tl"


def _compile_terms(terms: Sequence[str]) -> list[tuple[str, str, tuple[Any, ...]]]:
    """The tables where terms are, and the conditions that find them: local references are links."""
    links = [term for term in terms if is_local(term)]
    texts = [term for term in terms if not is_local(term)] if links else terms
    lookups: list[tuple[str, str, tuple[Any, ...]]] = []
    if texts or not links:
        lookups.append(("term", *compile_membership("value", texts)))
    if len(links) == 1:
        lookups.append(("link", "target = (SELECT rid FROM resource WHERE ref = ?)", (links[0],)))
    elif links:
        targets = "SELECT t.rid FROM json_each(?) j CROSS JOIN resource t WHERE t.ref = j.value"
        lookups.append(("link", f"target IN ({targets})", (format_json(links),)))
    return lookups


def _probe_json(part: str, clause: Any, alias: str, condition: Sql) -> Sql:
    """Some entry of the clause's parameter, `j.value`, fulfils a condition."""
    source = f"entries x CROSS JOIN json_each(x.{COLUMNS[part]}, ?) j"
    values = (format_path(part, clause.parameter), *condition[1])
    return f"EXISTS (SELECT 1 FROM {source} WHERE x.rid = {alias}.rid AND {condition[0]})", values


def _probe_parts(parts: str, clause: Any, alias: str, condition: Sql) -> Sql:
    text, values = join((_probe_json(part, clause, alias, condition) for part in parts), "OR")
    return f"({text})", values


def _probe_text(clause: TextClause, type: str, alias: str, context: Context) -> Sql:
    return _probe_parts(_find_text_parts(clause), clause, alias, compile_text(clause, "j.value"))


def _find_text_parts(clause: TextClause) -> str:
    """The parts of the entries where such a text can be: no local reference contains a separator."""
    if isinstance(clause, q.Contains):
        return "t" if clause.strings else "tl"
    return "t" if isinstance(clause, q.StartsWith) and SEPARATOR in clause.prefix else "tl"


def _probe_date(clause: q.DateRange, type: str, alias: str, context: Context) -> Sql:
    return _probe_json("d", clause, alias, _compile_date(clause))


def _compile_date(clause: q.DateRange) -> Sql:
    return compile_interval(clause.bounds, "json_extract(j.value, '$[0]')", "json_extract(j.value, '$[1]')", int)


def _probe_present(clause: q.Present, type: str, alias: str, context: Context) -> Sql:
    paths = tuple(format_path(part, clause.parameter) for part in COLUMNS)
    text = " OR ".join(f"json_type(x.{column}, ?) IS NOT NULL" for column in COLUMNS.values())
    return f"EXISTS (SELECT 1 FROM entries x WHERE x.rid = {alias}.rid AND ({text}))", paths


def _probe_ids(clause: q.Ids, type: str, alias: str, context: Context) -> Sql:
    return compile_membership(f"{alias}.ref", [f"{type}/{id}" for id in clause.ids])


def _probe_updated(clause: q.LastUpdated, type: str, alias: str, context: Context) -> Sql:
    return compile_interval(clause.bounds, f"{alias}.updated", f"{alias}.updated", int)


def _probe_chain(clause: q.Chain, type: str, alias: str, context: Context) -> Sql:
    target = f"{alias}t"
    if clause in context.targets_first:
        targets, values = select_matches("b.rid", clause.where, clause.type, "b", context)
        references = f"SELECT t.ref FROM ({targets}) y CROSS JOIN resource t WHERE t.rid = y.rid"
        return _probe_json("l", clause, alias, (f"j.value IN ({references})", values))
    where, values = probe_clause(clause.where, clause.type, target, context)
    text = (
        f"EXISTS (SELECT 1 FROM entries x CROSS JOIN json_each(x.quick, ?) j CROSS JOIN resource {target}"
        f" WHERE x.rid = {alias}.rid AND j.value >= ? AND j.value < ? AND {target}.ref = j.value"
        f"{'' if implies_current(clause.where) else f' AND {target}.deleted = 0'} AND {where})"
    )
    # "0" follows "/"
    return text, (format_path("l", clause.parameter), f"{clause.type}/", f"{clause.type}0", *values)


def _probe_has(clause: q.Has, type: str, alias: str, context: Context) -> Sql:
    source = f"{alias}s"
    where, values = probe_clause(clause.where, clause.type, source, context)
    text = (
        f"EXISTS (SELECT 1 FROM link x CROSS JOIN resource {source}"
        f" WHERE x.tp = ? AND x.target = {alias}.rid AND {source}.rid = x.rid AND {where})"
    )
    return text, (context.find_code(clause.type, clause.parameter), *values)


def _probe_canonical_chain(clause: q.CanonicalChain, type: str, alias: str, context: Context) -> Sql:
    target = f"{alias}t"
    where, values = probe_clause(clause.where, clause.type, target, context)
    text = (
        f"EXISTS (SELECT 1 FROM entries x CROSS JOIN json_each(x.terms, ?) j CROSS JOIN term u"
        f" CROSS JOIN entries e CROSS JOIN resource {target} WHERE x.rid = {alias}.rid AND {_HAS_URL}"
        f" AND e.rid = u.rid AND {_IS_NAMED.format('j.value')} AND {target}.rid = u.rid AND {where})"
    )
    return text, (format_path("t", clause.parameter), context.find_code(clause.type, URL), *values)


def _probe_canonical_has(clause: q.CanonicalHas, type: str, alias: str, context: Context) -> Sql:
    source = f"{alias}s"
    where, values = probe_clause(clause.where, clause.type, source, context)
    text = (
        f"EXISTS (SELECT 1 FROM entries e CROSS JOIN term x CROSS JOIN resource {source} WHERE e.rid = {alias}.rid"
        f" AND x.tp = ? AND {_IS_NAMED.format('x.value')} AND {source}.rid = x.rid AND {where})"
    )
    return text, (context.find_code(clause.type, clause.parameter), *values)


def _probe_every(clause: q.Every, type: str, alias: str, context: Context) -> Sql:
    target = f"{alias}t"
    scopes: list[Sql] = [("?", (0,))]
    for scope in clause.scopes:
        where, values = probe_clause(scope.where, scope.type, target, context)
        scopes.append((f"({target}.type = ? AND {where})", (context.find_code(scope.type), *values)))
    inside, values = join(scopes, "OR")
    found = f"SELECT 1 FROM resource {target} WHERE {target}.ref = j.value AND {target}.deleted = 0 AND ({inside})"
    outside = _probe_json("l", clause, alias, (f"NOT EXISTS ({found})", values))
    text, all_values = join((outside, _probe_json("t", clause, alias, ("1", ()))), "OR")
    return f"NOT ({text})", all_values


def _probe_list(clause: q.Near | q.Lineage, type: str, alias: str, context: Context) -> Sql:
    """Reads all that the clause matches, once for all resources that are tested."""
    matches = (
        select_near(clause, type, context) if isinstance(clause, q.Near) else select_lineage(clause, type, context)
    )
    return f"{alias}.rid IN ({matches[0]})", matches[1]


def _probe_and(clause: q.And, type: str, alias: str, context: Context) -> Sql:
    if not clause.clauses:
        return "1", ()
    text, values = join(probe_clause(part, type, alias, context) for part in clause.clauses)
    return f"({text})", values


def _probe_or(clause: q.Or, type: str, alias: str, context: Context) -> Sql:
    if not clause.clauses:
        return "?", (0,)  # a literal 0 lets SQLite drop the rest of the condition, then it misses what an index needs
    dates = _find_dates(clause)
    if dates and context.read_whole.isdisjoint(dates):
        text, values = join(map(_compile_date, dates), "OR")
        return _probe_json("d", dates[0], alias, (f"({text})", values))
    text, values = join((probe_clause(part, type, alias, context) for part in clause.clauses), "OR")
    return f"({text})", values


def _find_dates(clause: q.Or) -> list[q.DateRange]:
    """The alternatives, where all are dates of one parameter; else ()."""
    dates = [part for part in clause.clauses if isinstance(part, q.DateRange)]
    alike = len(dates) == len(clause.clauses) == sum(part.parameter == dates[0].parameter for part in dates)
    return dates if alike else []


def _probe_not(clause: q.Not, type: str, alias: str, context: Context) -> Sql:
    text, values = probe_clause(clause.clause, type, alias, context)
    return f"NOT ({text})", values


# --- SELECTs: which resources match? --------------------------------------------------------------------------------


def select_clause(clause: q.Clause, type: str, context: Context) -> Sql | None:
    """A SELECT of the distinct `rid`s of the current resources of `type` that match; None if only a probe can tell."""
    compiler = _COMPILERS[clause.__class__][1]
    return compiler(clause, type, context) if compiler else None


def _unite(parts: Sequence[Sql]) -> Sql:
    """The distinct `rid`s of several SELECTs; a reader that stops early lets them stop too, which UNION would not."""
    text, values = join(parts, "UNION ALL")
    return f"SELECT DISTINCT rid FROM ({text})", values


def _select_equals(clause: q.Equals, type: str, context: Context) -> Sql:
    tp = context.find_code(type, clause.parameter)
    lookups: list[Sql] = [
        (f"SELECT rid FROM {table} WHERE tp = ? AND {condition}", (tp, *values))
        for table, condition, values in _compile_terms(clause.terms)
    ]
    return lookups[0] if len(clause.terms) == 1 else _unite(lookups)


def _select_text(clause: TextClause, type: str, context: Context) -> Sql:
    tp = context.find_code(type, clause.parameter)
    if isinstance(clause, q.Contains) and trigrams.can_answer(clause):
        source, values = trigrams.compile_values(clause, tp, context.connection)
        value = f"t.tp = ? AND t.value IN (SELECT g.value {source})"
        return f"SELECT DISTINCT t.rid AS rid FROM term t WHERE {value}", (tp, *values)
    condition, values = compile_text(clause, "value")
    lookups: list[Sql] = [(f"SELECT rid FROM term WHERE tp = ? AND {condition}", (tp, *values))]
    if "l" in _find_text_parts(clause):
        condition, values = compile_text(clause, "t.ref")
        links = f"SELECT x.rid FROM link x CROSS JOIN resource t WHERE x.tp = ? AND t.rid = x.target AND {condition}"
        lookups.append((links, (tp, *values)))
    return _unite(lookups)


def _select_present(clause: q.Present, type: str, context: Context) -> Sql:
    tp = context.find_code(type, clause.parameter)
    return _unite([(f"SELECT rid FROM {table} WHERE tp = ?", (tp,)) for table in ("term", "link", "date", "number")])


def _select_ids(clause: q.Ids, type: str, context: Context) -> Sql:
    references = format_json(dict.fromkeys(f"{type}/{id}" for id in clause.ids))
    text = "SELECT r.rid FROM json_each(?) j CROSS JOIN resource r WHERE r.ref = j.value AND r.deleted = 0"
    return text, (references,)


def _select_updated(clause: q.LastUpdated, type: str, context: Context) -> Sql:
    condition, values = compile_interval(clause.bounds, "updated", "updated", int)
    text = f"SELECT rid FROM resource INDEXED BY resource_updated WHERE type = ? AND deleted = 0 AND {condition}"
    return text, (context.find_code(type), *values)


def select_matches(columns: str, clause: q.Clause, type: str, alias: str, context: Context) -> Sql:
    """A SELECT of columns of the row `alias` of `resource` for each match, entered by the likely cheapest clause."""
    parts = split_conjunction(clause)
    best = min(filter(has_index, parts), key=rank_clause, default=None)
    entry = select_clause(best, type, context) if best is not None and columns == f"{alias}.rid" else None
    if entry is not None and not any(map(needs_row, parts)):
        rest, values = join(probe_clause(part, type, alias, context) for part in parts if part is not best)
        return f"SELECT {columns} FROM ({entry[0]}) {alias} WHERE {rest or '1'}", (*entry[1], *values)
    source, condition = compile_source(parts, best, type, alias, context)
    return f"SELECT {columns} FROM {source[0]} WHERE {condition[0]}", (*source[1], *condition[1])


def compile_source(
    parts: Sequence[q.Clause], entry: q.Clause | None, type: str, alias: str, context: Context
) -> tuple[Sql, Sql]:
    """The FROM and WHERE of what matches all `parts`, entered by one of them (None: by all resources of the type)."""
    rows = select_clause(entry, type, context) if entry is not None else None
    rest = [part for part in parts if part is not entry]
    if rows is None:
        everything: Sql = (f"{alias}.type = ? AND {alias}.deleted = 0", (context.find_code(type),))
        probes = [probe_clause(part, type, alias, context) for part in rest]
        return (f"resource {alias} INDEXED BY resource_updated", ()), join((everything, *probes))
    # The entry's own rows are tested where that is possible: only what passes is looked up in `resource`.
    probes = [probe_clause(part, type, alias if needs_row(part) else f"{alias}c", context) for part in rest]
    source = f"({rows[0]}) {alias}c CROSS JOIN resource {alias}"
    return (source, rows[1]), join(((f"{alias}.rid = {alias}c.rid", ()), *probes))


def _select_chain(clause: q.Chain, type: str, context: Context) -> Sql:
    targets, values = select_matches("b.rid", clause.where, clause.type, "b", context)
    text = f"SELECT DISTINCT x.rid FROM ({targets}) y CROSS JOIN link x WHERE x.tp = ? AND x.target = y.rid"
    return text, (*values, context.find_code(type, clause.parameter))


def _select_has(clause: q.Has, type: str, context: Context) -> Sql:
    sources, values = select_matches("b.rid", clause.where, clause.type, "b", context)
    text = (
        f"SELECT DISTINCT t.rid FROM ({sources}) y CROSS JOIN entries e CROSS JOIN json_each(e.quick, ?) j"
        " CROSS JOIN resource t WHERE e.rid = y.rid AND t.ref = j.value AND t.type = ? AND t.deleted = 0"
    )
    return text, (*values, format_path("l", clause.parameter), context.find_code(type))


def _select_canonical_chain(clause: q.CanonicalChain, type: str, context: Context) -> Sql:
    targets, values = select_matches("b.rid", clause.where, clause.type, "b", context)
    text = (
        f"SELECT DISTINCT x.rid FROM ({targets}) y CROSS JOIN entries e CROSS JOIN term x"
        f" WHERE e.rid = y.rid AND x.tp = ? AND {_IS_NAMED.format('x.value')}"
    )
    return text, (*values, context.find_code(type, clause.parameter))


def _select_canonical_has(clause: q.CanonicalHas, type: str, context: Context) -> Sql:
    sources, values = select_matches("b.rid", clause.where, clause.type, "b", context)
    text = (
        f"SELECT DISTINCT u.rid FROM ({sources}) y CROSS JOIN entries x CROSS JOIN json_each(x.terms, ?) j"
        f" CROSS JOIN term u CROSS JOIN entries e WHERE x.rid = y.rid AND {_HAS_URL}"
        f" AND e.rid = u.rid AND {_IS_NAMED.format('j.value')}"
    )
    return text, (*values, format_path("t", clause.parameter), context.find_code(type, URL))


def _select_or(clause: q.Or, type: str, context: Context) -> Sql | None:
    dates = _find_dates(clause)
    merged = select_dates(dates, type, context) if dates else None
    if merged is not None:
        return merged
    parts = [select_clause(part, type, context) if has_index(part) else None for part in clause.clauses]
    indexed = [part for part in parts if part is not None]
    if not indexed or len(indexed) < len(parts):
        return None
    return _unite([(f"SELECT rid FROM ({text})", values) for text, values in indexed])


def _select_and(clause: q.And, type: str, context: Context) -> Sql | None:
    return select_matches("q.rid", clause, type, "q", context)


_COMPILERS: Mapping[type, tuple[Callable[..., Sql], Callable[..., Sql | None] | None]] = {
    q.Equals: (_probe_equals, _select_equals),
    q.StartsWith: (_probe_text, _select_text),
    q.Contains: (_probe_text, _select_text),
    q.EndsWith: (_probe_text, _select_text),
    q.TermRange: (_probe_text, _select_text),
    q.Words: (probe_words, select_words),
    q.DateRange: (_probe_date, select_date),
    q.NumberRange: (probe_number, select_number),
    q.Near: (_probe_list, select_near),
    q.Present: (_probe_present, _select_present),
    q.Ids: (_probe_ids, _select_ids),
    q.LastUpdated: (_probe_updated, _select_updated),
    q.Chain: (_probe_chain, _select_chain),
    q.Has: (_probe_has, _select_has),
    q.CanonicalChain: (_probe_canonical_chain, _select_canonical_chain),
    q.CanonicalHas: (_probe_canonical_has, _select_canonical_has),
    q.Every: (_probe_every, None),
    q.Lineage: (_probe_list, select_lineage),
    q.And: (_probe_and, _select_and),
    q.Or: (_probe_or, _select_or),
    q.Not: (_probe_not, None),
}
