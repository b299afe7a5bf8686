"""One criterion, `name=value`, as a clause: modifiers, chains and `_has` (https://hl7.org/fhir/R4/search.html#chaining).

name      = code [":" modifier]                                the parameter itself
          | code [":" Type] "." name                           a chain
          | "_has:" Type ":" reference code ":" name           a reverse chain
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from fhir_server.fhir.outcome import Invalid, TooCostly
from fhir_server.search.chains import build_chain, build_reverse_chain
from fhir_server.search.escapes import split
from fhir_server.search.parameters import TYPES, Criteria
from fhir_server.search.query import EVERYTHING, NOTHING, Clause, Not, Or, Present, rewrite_clause
from fhir_server.search.registry import Parameter
from fhir_server.search.simplify import simplify_or

MAX_LINKS = 8
MAX_BRANCHES = 400

MOST_VALUES = 10_000
"""Alternatives of one criterion, those of all branches of a chain together."""

UNSUPPORTED = frozenset({"_query"})
"""Parameters of the specification that this server does not evaluate."""

_REASONS = {"_query": ": it has no named queries. Ask by search parameters, or call an operation"}
NO_FULL_TEXT = (
    "This server keeps no full-text index, so `{}` cannot be applied. "
    "Switch on the setting `FHIR_FULL_TEXT`, then run `fhir-server reindex`."
)

_FULL_TEXT = frozenset({"_text", "_content"})
_TOP_LEVEL = frozenset({"_filter", "_list"})
_ONLY_TOP_LEVEL = "`{}` is a parameter of the search itself: it has no place in a chain, `_has`, `_filter` or `_sort`."


class UnsupportedParameter(Invalid):
    """A parameter that is unknown, unsupported or empty: the one thing that `Prefer: handling=lenient` forgives."""

    code = "not-supported"


@dataclass(frozen=True, slots=True)
class ChainPosition:
    """Where in a chain a name is read: the `name` as the client wrote it, links followed and branches made so far."""

    name: str
    links: int = 0
    branches: int = 1

    def advance(self, branches: int = 1) -> ChainPosition:
        """One link further; TooCostly when the chain is longer or wider than any store should be asked for."""
        position = ChainPosition(self.name, self.links + 1, self.branches * branches)
        if position.links > MAX_LINKS:
            raise TooCostly(f"`{self.name}` follows more than {MAX_LINKS} references; search in several steps.")
        if position.branches > MAX_BRANCHES:
            raise TooCostly(
                f"`{self.name}` may reach too many resource types; "
                "name the type of each link, as in `subject:Patient.name`."
            )
        return position


def parse_parameter(type: str, name: str, value: str, criteria: Criteria) -> Clause:
    """What `name=value` asks of a resource of `type`; commas in the value are OR.

    Raises UnsupportedParameter for what lenient handling ignores, Invalid (or TooCostly) for all that is wrong.
    """
    if not value:
        missing = "" if name.startswith("_") else f", or use `{name.partition(':')[0]}:missing=true`"
        raise UnsupportedParameter(f"`{name}` has no value; leave it out{missing}.", code="invalid")
    return _parse_name(type, name, value, ChainPosition(name), criteria)


def _parse_name(type: str, name: str, value: str, position: ChainPosition, criteria: Criteria) -> Clause:
    if name.startswith("_has:"):
        return _parse_reverse_chain(type, name, value, position, criteria)
    head, chained, rest = name.partition(".")
    if chained:
        return _parse_chain(type, head, rest, value, position, criteria)
    code, _, modifier = name.partition(":")
    parameter = find_parameters((type,), code, criteria)[0]
    if name.endswith(":"):
        raise Invalid(f"`{position.name}` ends in a colon without a modifier. {_list_modifiers(parameter)}")
    if modifier == "missing":
        return _parse_missing(parameter, position, value)
    return _parse_alternatives(parameter, modifier, position, value, criteria)


def find_parameters(types: Sequence[str], code: str, criteria: Criteria) -> tuple[Parameter, ...]:
    """The parameter `code` of each type; UnsupportedParameter, with the valid ones listed, where a type lacks it."""
    tables = [criteria.registry.parameters(type) for type in types]
    if code in _FULL_TEXT:
        raise UnsupportedParameter(_ONLY_TOP_LEVEL.format(code) if criteria.full_text else NO_FULL_TEXT.format(code))
    if code in _TOP_LEVEL:
        raise UnsupportedParameter(_ONLY_TOP_LEVEL.format(code))
    if code in UNSUPPORTED or any(code in table and table[code].type == "special" for table in tables):
        raise UnsupportedParameter(
            f"This server does not support the search parameter `{code}`{_REASONS.get(code, '')}."
        )
    found = tuple(table[code] for table in tables if code in table)
    if len(found) == len(tables):
        check_indexed(found)
        return found
    raise UnsupportedParameter(
        f"{_describe_types(types)} no search parameter `{code}`.{_suggest(code, tables)} Valid ones: "
        f"{_list_parameters(tables)}. `Prefer: handling=lenient` ignores what is unknown."
    )


def _suggest(code: str, tables: Sequence[Mapping[str, Parameter]]) -> str:
    """` Did you mean …?` with the valid codes nearest to this one; empty where none is near."""
    near = difflib.get_close_matches(code[:64], _list_valid(tables), 2)
    return f" Did you mean {' or '.join(f'`{each}`' for each in near)}?" if near else ""


def check_indexed(parameters: Iterable[Parameter]) -> None:
    """Raises UnsupportedParameter for a parameter that the resources written before it are not indexed by."""
    for parameter in parameters:
        if parameter.pending:
            raise UnsupportedParameter(
                f"`{parameter.base}.{parameter.code}` is new: resources that were stored before it are not indexed by "
                f"it yet. Run `fhir-server reindex {parameter.base}`, or POST to `$reindex`; then it can be searched."
            )


def _describe_types(types: Sequence[str]) -> str:
    if len(types) == 1:
        return f"`{types[0]}` has"
    if len(types) > 5:
        return "The resource types searched have in common"
    return f"{', '.join(f'`{type}`' for type in types)} have in common"


def _list_parameters(tables: Iterable[Mapping[str, Parameter]]) -> str:
    return ", ".join(f"`{code}`" for code in _list_valid(tables))


def _list_valid(tables: Iterable[Mapping[str, Parameter]]) -> list[str]:
    """The codes that all tables have."""
    first, *others = ({code for code, each in table.items() if each.type != "special"} for table in tables)
    return sorted(first.intersection(*others) - UNSUPPORTED)


def _parse_missing(parameter: Parameter, position: ChainPosition, value: str) -> Clause:
    if value not in ("true", "false"):
        raise Invalid(f"`{position.name}` takes `true` or `false`, not `{value}`.")
    if parameter.code in ("_id", "_lastUpdated"):  # every stored resource has both
        return NOTHING if value == "true" else EVERYTHING
    present = ask_parts(Present(parameter.code), parameter)
    if parameter.type == "reference":  # a reference by identifier alone is indexed under a name of its own
        present = Or((present, Present(f"{parameter.code}:identifier")))
    return Not(present) if value == "true" else present


def _parse_alternatives(
    parameter: Parameter, modifier: str, position: ChainPosition, value: str, criteria: Criteria
) -> Clause:
    kind = TYPES[parameter.type]
    if modifier and modifier not in kind.list_modifiers(parameter):
        _check_type_modifier(parameter, modifier, criteria)
    alternatives = split(value, ",")
    if "" in alternatives:
        raise Invalid(f"`{position.name}={value}` has an empty alternative; write a comma inside a value as `\\,`.")
    if len(alternatives) * position.branches > MOST_VALUES:
        raise TooCostly(
            f"`{position.name}` has {len(alternatives) * position.branches:,} alternatives; {MOST_VALUES:,} are "
            "possible. Search in several steps."
        )
    clause = simplify_or(kind.parse_clause(parameter, modifier or None, text, criteria) for text in alternatives)
    clause = ask_parts(clause, parameter)
    return Not(clause) if modifier in kind.negating_modifiers else clause


def ask_parts(clause: Clause, parameter: Parameter) -> Clause:
    """The clause of a criterion by a parameter, with its parts in its place where it has any: one of them matches."""
    if not parameter.parts:
        return clause
    code, colon, suffix = getattr(clause, "parameter", "").partition(":")
    if code != parameter.code:
        return rewrite_clause(clause, lambda child: ask_parts(child, parameter))
    leaf = cast(Any, clause)
    asked: list[Clause] = [replace(leaf, parameter=part + colon + suffix) for part in parameter.parts]
    return asked[0] if len(asked) == 1 else Or(tuple(asked))


def _check_type_modifier(parameter: Parameter, modifier: str, criteria: Criteria) -> None:
    """`subject:Patient=23`: the modifier of a reference may be one of its target types."""
    if parameter.type == "reference" and modifier in criteria.registry.types:
        _find_targets(parameter, modifier, criteria)
        return
    raise Invalid(f"`{parameter.base}.{parameter.code}` has no modifier `{modifier}`. {_list_modifiers(parameter)}")


def _list_modifiers(parameter: Parameter) -> str:
    modifiers = sorted({"missing", *TYPES[parameter.type].list_modifiers(parameter)})
    targets = sorted(parameter.targets) if parameter.type == "reference" else []
    return "Valid ones: " + ", ".join(f"`:{modifier}`" for modifier in (*modifiers, *targets)) + "."


def _find_targets(parameter: Parameter, target: str, criteria: Criteria) -> tuple[str, ...]:
    """The served types that a reference may lead to: all of its targets, or the one the client named."""
    served = criteria.registry.types
    possible = tuple(sorted(parameter.targets)) or served
    if not target:
        return tuple(type for type in possible if type in served)
    if target not in possible or target not in served:
        raise Invalid(
            f"`{parameter.base}.{parameter.code}` cannot refer to `{target}`. "
            f"Valid types: {', '.join(f'`{type}`' for type in possible)}."
        )
    return (target,)


def _parse_chain(type: str, head: str, rest: str, value: str, position: ChainPosition, criteria: Criteria) -> Clause:
    """`subject:Patient.name`; without a type, any target type that has the parameter may match."""
    code, colon, target = head.partition(":")
    parameter = find_parameters((type,), code, criteria)[0]
    if colon and not target:
        raise Invalid(f"`{position.name}` has a colon without a type; name one, as in `subject:Patient.name`.")
    if parameter.type != "reference":
        raise Invalid(f"`{type}.{code}` is no reference, so `{position.name}` cannot be followed through it.")
    targets = _find_targets(parameter, target, criteria)
    knowing = [candidate for candidate in targets if knows_parameter(candidate, rest, criteria)]
    if not knowing:
        raise UnsupportedParameter(
            f"No type that `{type}.{code}` refers to has the search parameter `{_get_first_code(rest)}` "
            f"of `{position.name}`. "
            + (f"Valid ones: {_list_parameters([criteria.registry.parameters(target)])}." if target else "")
        )
    # `subject.type:text`: a code has no text, but the types of other subjects do.
    reached = [candidate for candidate in knowing if _takes_modifier(candidate, rest, criteria)] or knowing
    next_position = position.advance(len(reached))
    return simplify_or(
        build_chain(
            parameter, candidate, _parse_name(candidate, rest, value, next_position, criteria), criteria.registry
        )
        for candidate in reached
    )


def _get_first_code(name: str) -> str:
    return name.partition(".")[0].partition(":")[0]


def knows_parameter(type: str, name: str, criteria: Criteria) -> bool:
    """Whether the name can be read at that type; for `_has`, whether its reference may lead there."""
    if name.startswith("_has:"):
        source, code = (*name.split(":", 3), "", "")[1:3]
        parameter = criteria.registry.parameters(source).get(code) if source in criteria.registry.types else None
        return parameter is None or not parameter.targets or type in parameter.targets
    return _get_first_code(name) in criteria.registry.parameters(type)


def _takes_modifier(type: str, name: str, criteria: Criteria) -> bool:
    """Whether the modifier at the end of a name that the type knows, if there is one, fits the parameter there."""
    code, _, modifier = name.partition(":")
    if "." in name or modifier in ("", "missing") or modifier in criteria.registry.types or code == "_has":
        return True
    parameter = criteria.registry.parameters(type)[code]
    return modifier in TYPES[parameter.type].list_modifiers(parameter)


def _parse_reverse_chain(type: str, name: str, value: str, position: ChainPosition, criteria: Criteria) -> Clause:
    """`_has:Observation:patient:code`: some Observation whose `patient` is this resource has that code."""
    parts = name.split(":", 3)
    if len(parts) < 4 or not all(parts):
        raise Invalid(f"`{position.name}` should read `_has:[type]:[reference parameter]:[parameter]`.")
    _, source, code, rest = parts
    if source not in criteria.registry.types:
        raise Invalid(f"`{source}` in `{position.name}` is no resource type of this server.")
    parameter = find_parameters((source,), code, criteria)[0]
    if parameter.type != "reference" or (parameter.targets and type not in parameter.targets):
        raise Invalid(f"`{source}.{code}` in `{position.name}` is no reference to `{type}`.")
    return build_reverse_chain(
        parameter, type, _parse_name(source, rest, value, position.advance(), criteria), criteria.registry
    )
