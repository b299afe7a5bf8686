"""Chains and `_has` through canonicals, which name a resource by its URL (https://hl7.org/fhir/R4/references.html#canonical).

A canonical is indexed as a term, URL and version, not as a link: what it names may be stored later or under another id.
"""

from __future__ import annotations

from fhir_server.store.sqlite.conditions import Sql

_URL = "json_extract(e.terms, '$.t.url[0]')"
_VERSION = "json_extract(e.terms, '$.t.version[0]')"
# The canonicals that name the resource with the row `e` of `entries`: its URL, and that with its version.
_NAMES = f"({_URL} || char(31), {_URL} || char(31) || substr({_VERSION}, 1, instr({_VERSION}, char(31)) - 1))"
_ABSOLUTE = f"instr({_URL}, ':') > 0"
# The URL of the canonical `j.value`.
_CANONICAL_URL = "substr(j.value, 1, instr(j.value, char(31)) - 1)"


def probe_chain(alias: str, target: str, values: tuple[str, int], inner: Sql) -> Sql:
    """Whether the row `alias` of `resource` names a row `target` for which `inner` holds.

    `values`: the JSON path of its parameter, the number of the URLs of the other type.
    """
    text = (
        f"EXISTS (SELECT 1 FROM entries x CROSS JOIN json_each(x.terms, ?) j CROSS JOIN term u"
        f" CROSS JOIN entries e CROSS JOIN resource {target} WHERE x.rid = {alias}.rid AND u.tp = ?"
        f" AND u.value = {_CANONICAL_URL} AND e.rid = u.rid AND {_ABSOLUTE} AND j.value IN {_NAMES}"
        f" AND {target}.rid = u.rid AND {inner[0]})"
    )
    return text, (*values, *inner[1])


def probe_has(alias: str, source: str, tp: int, inner: Sql) -> Sql:
    """Whether a row `source` for which `inner` holds names the row `alias` of `resource` by its parameter `tp`."""
    text = (
        f"EXISTS (SELECT 1 FROM entries e CROSS JOIN term x CROSS JOIN resource {source}"
        f" WHERE e.rid = {alias}.rid AND {_ABSOLUTE} AND x.tp = ? AND x.value IN {_NAMES}"
        f" AND {source}.rid = x.rid AND {inner[0]})"
    )
    return text, (tp, *inner[1])


def select_chain(tp: int, inner: Sql) -> Sql:
    """The resources that name one of those that `inner` selects, by their parameter `tp`."""
    text = (
        f"SELECT DISTINCT x.rid FROM ({inner[0]}) y CROSS JOIN entries e CROSS JOIN term x"
        f" WHERE e.rid = y.rid AND {_ABSOLUTE} AND x.tp = ? AND x.value IN {_NAMES}"
    )
    return text, (*inner[1], tp)


def select_has(values: tuple[str, int], inner: Sql) -> Sql:
    """The resources that one of those that `inner` selects names; `values` as for `probe_chain`."""
    text = (
        f"SELECT DISTINCT u.rid FROM ({inner[0]}) y CROSS JOIN entries x CROSS JOIN json_each(x.terms, ?) j"
        f" CROSS JOIN term u CROSS JOIN entries e WHERE x.rid = y.rid AND u.tp = ? AND u.value = {_CANONICAL_URL}"
        f" AND e.rid = u.rid AND {_ABSOLUTE} AND j.value IN {_NAMES}"
    )
    return text, (*inner[1], *values)
