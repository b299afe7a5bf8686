"""Chains and `_has` through canonicals: what names a resource by its URL (https://hl7.org/fhir/R4/references.html#canonical).

A canonical is a term, URL and version; a link it is not, for what it names may be stored later or under another id.
"""

from __future__ import annotations

from fhir_server.store.sqlite.conditions import Sql

_URL = "json_extract({0}.terms, '$.t.url[0]')"
_VERSION = "json_extract({0}.terms, '$.t.version[0]')"
# The names of the resource whose `entries` are meant: its URL, and that with its version (`entries.list_canonicals`).
_NAMES = f"({_URL} || char(31), {_URL} || char(31) || substr({_VERSION}, 1, instr({_VERSION}, char(31)) - 1))"
_ABSOLUTE = f"instr({_URL}, ':') > 0"
_NAMED = "substr(j.value, 1, instr(j.value, char(31)) - 1)"


def names(alias: str) -> str:
    """A list of the canonicals that name the resource with the row `alias` of `entries`."""
    return _NAMES.format(alias)


def probe_chain(alias: str, target: str, values: tuple[str, int], inner: Sql) -> Sql:
    """Whether the row `alias` of `resource` names a row `target` for which `inner` holds.

    `values`: the JSON path of its parameter, the number of the URLs of the other type.
    """
    text = (
        f"EXISTS (SELECT 1 FROM entries x CROSS JOIN json_each(x.terms, ?) j CROSS JOIN term u"
        f" CROSS JOIN entries e CROSS JOIN resource {target} WHERE x.rid = {alias}.rid AND u.tp = ?"
        f" AND u.value = {_NAMED} AND e.rid = u.rid AND {_ABSOLUTE.format('e')} AND j.value IN {names('e')}"
        f" AND {target}.rid = u.rid AND {inner[0]})"
    )
    return text, (*values, *inner[1])


def probe_has(alias: str, source: str, tp: int, inner: Sql) -> Sql:
    """Whether a row `source` for which `inner` holds names the row `alias` of `resource` by its parameter `tp`."""
    text = (
        f"EXISTS (SELECT 1 FROM entries e CROSS JOIN term x CROSS JOIN resource {source}"
        f" WHERE e.rid = {alias}.rid AND {_ABSOLUTE.format('e')} AND x.tp = ? AND x.value IN {names('e')}"
        f" AND {source}.rid = x.rid AND {inner[0]})"
    )
    return text, (tp, *inner[1])


def drive_chain(tp: int, inner: Sql) -> Sql:
    """The resources that name one of those that `inner` selects, by their parameter `tp`."""
    text = (
        f"SELECT DISTINCT x.rid FROM ({inner[0]}) y CROSS JOIN entries e CROSS JOIN term x"
        f" WHERE e.rid = y.rid AND {_ABSOLUTE.format('e')} AND x.tp = ? AND x.value IN {names('e')}"
    )
    return text, (*inner[1], tp)


def drive_has(values: tuple[str, int], inner: Sql) -> Sql:
    """The resources that one of those that `inner` selects names; `values` as for `probe_chain`."""
    text = (
        f"SELECT DISTINCT u.rid FROM ({inner[0]}) y CROSS JOIN entries x CROSS JOIN json_each(x.terms, ?) j"
        f" CROSS JOIN term u CROSS JOIN entries e WHERE x.rid = y.rid AND u.tp = ? AND u.value = {_NAMED}"
        f" AND e.rid = u.rid AND {_ABSOLUTE.format('e')} AND j.value IN {names('e')}"
    )
    return text, (*inner[1], *values)
