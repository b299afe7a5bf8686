"""The segments of a message become groups by the structure table.

A segment belongs to the nearest group that may hold it.
https://www.hl7.eu/HL7v2x/v28/std28/ch02.html, section 2.5.2 and table HL70354. `tables/structures.tsv` has a row for
each group: its parent, the segments that open it, and all that it may hold. A star marks a group that repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from mappers.hl7v2.er7 import Message, Segment, Segments
from mappers.hl7v2.issues import Issue, tell
from mappers.hl7v2.tables import read_table


@dataclass(frozen=True, slots=True)
class Group(Segments):
    """An instance of a group: its own segments, and the groups inside it, in the order of the message."""

    name: str
    segments: list[Segment] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def list_children(self, *names: str) -> list[Group]:
        """The groups of these names directly inside this one."""
        return [each for each in self.groups if each.name in names]

    def find(self, name: str) -> Iterator[Group]:
        """The groups of a name at any depth."""
        for each in self.groups:
            if each.name == name:
                yield each
            yield from each.find(name)


class Rule(NamedTuple):
    """What the table says of one group."""

    name: str
    repeats: bool
    openers: tuple[str, ...]
    segments: frozenset[str]
    children: tuple[Rule, ...]

    def opens_by(self, segment: str) -> bool:
        """Whether an instance can begin with this segment, itself or by a group inside a group without openers."""
        return segment in self.openers or (not self.openers and any(each.opens_by(segment) for each in self.children))


@lru_cache(maxsize=512)
def find_structure(name: str) -> Rule | None:
    """The outermost group of a message structure such as `ADT_A01`, None where it is not in the table."""
    rows = [row for row in read_table("structures.tsv") if row[0] == name]

    def build(row: tuple[str, ...]) -> Rule:
        group = row[1].rstrip("*")
        children = tuple(build(child) for child in rows if child[2] == group)
        return Rule(group, row[1].endswith("*"), tuple(row[3].split()), frozenset(row[4].split()), children)

    return next((build(row) for row in rows if not row[2]), None)


class Grouped(NamedTuple):
    """The message as a tree, and an issue for each segment that its structure does not know."""

    root: Group
    issues: tuple[Issue, ...]


def build_groups(message: Message, structure: Rule) -> Grouped:
    """Builds the tree in one pass. Segments that the structure does not hold stand in the nearest open group."""
    root = Group(structure.name)
    path = [(structure, root)]
    issues = []
    for segment in message.segments:
        if not _place(segment, path):
            path[-1][1].segments.append(segment)
            if not segment.name.startswith("Z"):
                text = f"The structure of this message has no segment {segment.name} here; it is kept with the message."
                issues.append(tell(text, segment.place()))
    return Grouped(root, tuple(issues))


def _place(segment: Segment, path: list[tuple[Rule, Group]]) -> bool:
    """Puts a segment into the nearest group on the path, or a new group inside one; shortens the path to there."""
    for depth in range(len(path) - 1, -1, -1):
        rule, group = path[depth]
        if segment.name in rule.segments and _takes(rule, group, segment.name):
            del path[depth + 1 :]
            group.segments.append(segment)
            return True
        for child in rule.children:
            if child.opens_by(segment.name) and (child.repeats or not group.list_children(child.name)):
                del path[depth + 1 :]
                _open(child, group, segment, path)
                return True
    return False


def _takes(rule: Rule, group: Group, name: str) -> bool:
    """An opener joins an instance only where neither it nor a later opener is there already."""
    if name not in rule.openers:
        return True
    later = rule.openers[rule.openers.index(name) :]
    return not any(group.holds(each) for each in later)


def _open(rule: Rule, parent: Group, segment: Segment, path: list[tuple[Rule, Group]]) -> None:
    """Opens a group, and inside a group without openers the one that the segment opens."""
    group = Group(rule.name)
    parent.groups.append(group)
    path.append((rule, group))
    if segment.name in rule.openers:
        group.segments.append(segment)
        return
    inner = next(each for each in rule.children if each.opens_by(segment.name))
    _open(inner, group, segment, path)
