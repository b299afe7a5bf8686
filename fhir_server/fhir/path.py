"""The FHIRPath of search parameters, parsed into a frozen tree (https://hl7.org/fhir/R4/search.html#reg, http://hl7.org/fhirpath/N1/).

The subset: members, `[n]` and `first()`, `as` in its three spellings and `ofType`, `where(…)` with comparisons,
`exists()`, `hasExtension(url)`, `resolve() is T`, `and`, `or`; `extension(url)`; `%resource`; and an expression that
is true or false as a whole. The official R4 expressions need no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fhir_server.fhir.definitions import Property


@dataclass(frozen=True, slots=True)
class Member:
    """One step to an element: all its values, those of one `type`, or the one at `index`."""

    name: str
    type: str | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Where:
    """A filter: the values for which the condition holds."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Compare:
    """Some value at `path` equals the literal or, for `!=`, there are values and none does."""

    path: Path
    operator: Literal["=", "!="]
    literal: str | bool | int | float


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value at `path`."""

    path: Path


@dataclass(frozen=True, slots=True)
class Resolves:
    """The reference leads to a resource of `type`."""

    type: str


@dataclass(frozen=True, slots=True)
class All:
    """Every condition holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one condition holds."""

    conditions: tuple[Condition, ...]


class ExpressionError(ValueError):
    """An expression that cannot be applied; `position` counts its characters from 1."""

    def __init__(self, sentence: str, position: int) -> None:
        super().__init__(sentence)
        self.position = position


Step = Member | Where
Path = tuple[Step, ...]
Condition = Compare | Exists | Resolves | All | Some

ROOTS = frozenset({"Resource", "DomainResource"})

MAX_DEPTH = 30
"""Parentheses inside each other, those of functions too."""
MAX_STEPS = 100
"""Steps of a path: extraction recurses as deep."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One alternative of a union.

    `root` is the type it starts at, `%resource`, or "" when it is relative to an element. `steps` leave the root out.
    `truth` is set for an expression that is true or false of the whole resource; its paths leave the root out too.
    """

    text: str
    root: str
    steps: Path = ()
    truth: Condition | None = None


def parse(expression: str) -> tuple[Branch, ...]:
    """The alternatives of an expression. Raises ExpressionError with a sentence when it goes beyond the subset."""
    parser = _Parser(expression)
    try:
        return parser.parse_union()
    except ExpressionError:
        raise
    except ValueError as error:  # a step that does not fit the one before it
        raise ExpressionError(f"`{expression}`: {error}", parser.find_position()) from None


def parse_for(expression: str, type: str) -> tuple[Branch, ...]:
    """The alternatives that apply to a resource type: its own, those of its abstract types, those that name no type."""
    return tuple(branch for branch in parse(expression) if branch.root in (type, "") or branch.root in ROOTS)


def find_keys(properties: Mapping[str, Property], member: Member) -> Iterator[tuple[str, Property]]:
    """The JSON keys that a member may stand for: one, or those of a choice (`value`: `valueQuantity`, …).

    The key of one type (`valueDateTime`) is accepted too: FHIRPath writes `value`, but US Core writes the key.
    """
    for key, property in properties.items():
        if member.name in (property.element.name, key) and (
            member.type is None or _lower_first(property.type) == _lower_first(member.type)
        ):
            yield key, property


def find_missing_step(properties: Mapping[str, Mapping[str, Property]], type: str, steps: Path) -> str:
    """The name of the first step that leads to no element; that of the last step when every step leads to one."""
    types = {type}
    name = ""
    for step in steps:
        if isinstance(step, Member):
            name = step.name
            types = {each.type for owner in types for _, each in find_keys(properties.get(owner, {}), step)}
            if not types:
                break
    return name


def _lower_first(type: str) -> str:
    """The type with a small first letter: R4 itself writes both `as(dateTime)` and `as(DateTime)`."""
    return type[:1].lower() + type[1:]


_TOKEN = re.compile(r"\s*(?:('(?:[^'\\]|\\.)*')|(%?[A-Za-z_][A-Za-z0-9_]*)|([0-9]+(?:\.[0-9]+)?)|(!=|[().\[\]|=,]))")
_KEYWORDS = frozenset({"as", "is", "and", "or"})


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, expression: str) -> None:
        self._text = expression
        self._tokens: list[tuple[str, int, int]] = []
        self._next = 0
        self._depth = 0
        position, end = 0, len(expression.rstrip())
        while position < end:
            token = _TOKEN.match(expression, position)
            if not token:
                raise ExpressionError(
                    f"`{expression}` has something unreadable at `{expression[position:]}`.", position + 1
                )
            start = token.start(token.lastindex or 0)
            self._tokens.append((expression[start : token.end()], start, token.end()))
            position = token.end()

    def parse_union(self) -> tuple[Branch, ...]:
        branches = [self._parse_branch()]
        while self._accept("|"):
            branches.append(self._parse_branch())
        if self._next < len(self._tokens):
            raise self._make_error()
        return tuple(branches)

    def _parse_branch(self) -> Branch:
        first = self._next
        found = self._parse_condition_or_path()
        text = self._text[self._tokens[first][1] : self._tokens[self._next - 1][2]]
        if isinstance(found, tuple):
            root, steps = _split_root(found)
            return Branch(text, root, steps)
        root, truth = _split_condition_root(found)
        return Branch(text, root, (), truth)

    def _parse_condition_or_path(self) -> Condition | Path:
        if self._depth > MAX_DEPTH:
            raise ExpressionError(
                f"The expression has more than {MAX_DEPTH} levels of parentheses.", self.find_position()
            )
        self._depth += 1
        found = [self._parse_conjunction()]
        while self._accept("or"):
            found.append(self._parse_conjunction())
        self._depth -= 1
        return found[0] if len(found) == 1 else Some(tuple(map(self._to_condition, found)))

    def _parse_conjunction(self) -> Condition | Path:
        found = [self._parse_comparison()]
        while self._accept("and"):
            found.append(self._parse_comparison())
        return found[0] if len(found) == 1 else All(tuple(map(self._to_condition, found)))

    def _to_condition(self, parsed: Condition | Path) -> Condition:
        """A bare path in the place of a condition is an element of type boolean."""
        return Compare(parsed, "=", True) if isinstance(parsed, tuple) else parsed

    def _parse_comparison(self) -> Condition | Path:
        found = self._parse_path()
        if not isinstance(found, tuple):
            return found
        if self._accept("as"):
            return _narrow(found, type=self._advance())
        if self._accept("="):
            return Compare(found, "=", self._parse_literal())
        if self._accept("!="):
            return Compare(found, "!=", self._parse_literal())
        return found

    def _parse_path(self) -> Condition | Path:
        """Steps joined by dots; `exists()` and `resolve() is T` end it as a condition."""
        if self._accept("("):
            found = self._parse_condition_or_path()
            self._expect(")")
            if not isinstance(found, tuple):
                return found
            steps: Path = found
        else:
            first = self._parse_step((), self._advance())
            if not isinstance(first, tuple):
                return first
            steps = first
        while True:
            if self._accept("["):
                steps = _narrow(steps, index=self._parse_number())
                self._expect("]")
            elif self._accept("."):
                result = self._parse_step(steps, self._advance())
                if not isinstance(result, tuple):
                    return result
                steps = result
            else:
                return steps

    def _parse_step(self, steps: Path, name: str) -> Condition | Path:
        if not re.match(r"[%A-Za-z_]", name) or name in _KEYWORDS - {"as"}:
            raise self._make_error()
        if len(steps) >= MAX_STEPS:
            raise ExpressionError(
                f"A path of the expression has more than {MAX_STEPS} steps.", self.find_position(back=1)
            )
        if not self._accept("("):
            return (*steps, Member(name))
        found = self._parse_call(steps, name)
        self._expect(")")
        if isinstance(found, Resolves):
            if not self._accept("is"):
                raise ExpressionError(f"`{self._text}` uses `resolve()` without `is`.", self.find_position())
            return Resolves(self._advance())
        return found

    def _parse_call(self, steps: Path, name: str) -> Condition | Path:
        """The function `name` up to its closing parenthesis."""
        match name:
            case "as" | "ofType":
                return _narrow(steps, type=self._advance())
            case "where":
                return (*steps, Where(self._to_condition(self._parse_condition_or_path())))
            case "extension":
                return (*steps, *_build_extension_path(self._parse_literal()))
            case "hasExtension":
                return Exists((*steps, *_build_extension_path(self._parse_literal())))
            case "exists":
                return Exists(steps)
            case "first":
                return _narrow(steps, index=0)
            case "resolve" if not steps:
                return Resolves("")
        raise ExpressionError(
            f"`{self._text}` uses the function `{name}`, which search expressions here cannot have.",
            self.find_position(back=2),
        )

    def _parse_literal(self) -> str | bool | float:
        token = self._advance()
        if token in ("true", "false"):
            return token == "true"
        if token.startswith("'"):
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        if token[0].isdigit():
            return float(token) if "." in token else int(token)
        raise self._make_error()

    def _parse_number(self) -> int:
        token = self._advance()
        if not token.isdigit():
            self._next -= 1
            raise self._make_error()
        return int(token)

    def _accept(self, token: str) -> bool:
        if self._next < len(self._tokens) and self._tokens[self._next][0] == token:
            self._next += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._make_error()

    def _advance(self) -> str:
        if self._next >= len(self._tokens):
            raise ExpressionError(f"`{self._text}` ends too early.", self.find_position())
        self._next += 1
        return self._tokens[self._next - 1][0]

    def _make_error(self) -> ExpressionError:
        rest = self._text[self._tokens[self._next][1] :] if self._next < len(self._tokens) else "the end"
        return ExpressionError(f"`{self._text}` cannot be read from `{rest}` on.", self.find_position())

    def find_position(self, back: int = 0) -> int:
        """Where the next token starts, or one some tokens back; after the last one, the end of the expression."""
        at = self._next - back
        return self._tokens[at][1] + 1 if at < len(self._tokens) else len(self._text) + 1


def _build_extension_path(url: str | bool | float) -> Path:
    return Member("extension"), Where(Compare((Member("url"),), "=", url))


def _narrow(steps: Path, **changes: str | int) -> Path:
    """The path with its last member narrowed to a `type` or an `index`."""
    if not steps or not isinstance(steps[-1], Member):
        raise ValueError("A type or an index must follow a member.")
    return (*steps[:-1], replace(steps[-1], **changes))  # type: ignore[arg-type]


def _split_root(steps: Path) -> tuple[str, Path]:
    """The root that a path names, and the rest; roots are written with a capital or a percent sign."""
    first = steps[0]
    if isinstance(first, Member) and (first.name[0].isupper() or first.name == "%resource"):
        return first.name, steps[1:]
    return "", steps


def _split_condition_root(condition: Condition) -> tuple[str, Condition]:
    match condition:
        case Compare(path, operator, literal):
            root, rest = _split_root(path)
            return root, Compare(rest, operator, literal)
        case Exists(path):
            root, rest = _split_root(path)
            return root, Exists(rest)
        case All(conditions) | Some(conditions):
            rooted = [_split_condition_root(each) for each in conditions]
            roots = {root for root, _ in rooted}
            if len(roots) != 1:
                raise ValueError("The paths of one condition must start at the same type.")
            return roots.pop(), type(condition)(tuple(each for _, each in rooted))
    return "", condition
