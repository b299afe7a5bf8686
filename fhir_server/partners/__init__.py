"""Partners: who speaks which format with us, from where, with which systems and codes (docs/partners.md)."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator

from fhir_server.partners.endpoints import FolderEndpoint, HttpEndpoint, MllpEndpoint, Transports
from fhir_server.partners.hl7v2 import Hl7v2Field, Hl7v2OutSection, Hl7v2Section, Hl7v2Send, Hl7v2Side
from fhir_server.partners.section import Section, Text
from fhir_server.partners.x12 import X12OwnSide, X12Section, X12Separators, X12Side

LARGEST_FILE = 1024 * 1024
"""Bytes of a partner's file."""

_LONGEST_STATEMENT = 200
"""Lines of one statement; behind a longer one no line is told more exactly than by its table."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TOML_PLACE = re.compile(r"\s*\(at line (\d+), column \d+\)|\s*\(at end of document\)")


class WrongPartner(ValueError):
    """A partner's file is wrong; str has a line for each fault: file, line, key and reason."""


class Translation(Section):
    """The code that takes the place of a partner's own, which stays beside it."""

    system: Text
    code: Text
    display: str = ""


class Partner(Section):
    """One partner, as its file says."""

    name: str
    formats: Annotated[tuple[Literal["hl7v2", "x12"], ...], Field(min_length=1)]
    zone: str = "UTC"
    systems: Mapping[str, Text] = Field(default_factory=dict)
    default_authority: str = ""
    translations: Mapping[str, Mapping[str, Translation]] = Field(default_factory=dict)
    duplicate_control_numbers: Literal["warn", "refuse"] = "warn"
    retention_days: Annotated[int, Field(ge=1)] | None = None
    transports: Transports = Transports()
    hl7v2: Hl7v2Section | None = None
    x12: X12Section | None = None

    _path: Path | None = PrivateAttr(None)
    """The file that says it."""

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("Use up to 63 small letters, digits and `-`.")
        return name

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("Use an IANA name of a time zone, such as `America/New_York`.") from None
        return zone

    @field_validator("systems")
    @classmethod
    def _urls(cls, systems: Mapping[str, str]) -> Mapping[str, str]:
        for authority, system in systems.items():
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*:\S+", system):
                raise ValueError(
                    f"The system of `{authority}` is `{system}`, which is no URL, such as `urn:oid:1.2.3`."
                )
        return systems

    @field_validator("default_authority")
    @classmethod
    def _has_system(cls, authority: str, info: ValidationInfo) -> str:
        if authority and authority not in info.data.get("systems", {authority: ""}):
            raise ValueError("It has no system; add it to the table `systems`.")
        return authority

    @model_validator(mode="after")
    def _speaks_its_tables(self) -> Partner:
        for name in ("hl7v2", "x12"):
            if getattr(self, name) is not None and name not in self.formats:
                raise ValueError(f"It has a table `{name}`, and `formats` has no `{name}`; add it there.")
        return self

    @model_validator(mode="after")
    def _can_answer(self) -> Partner:
        folder = self.transports.folder
        if self.x12 is not None and self.x12.answers and (folder is None or folder.out is None):
            raise ValueError("`x12.answers` go to the folder `out`: name it in `transports.folder`, or leave them out.")
        return self

    @model_validator(mode="after")
    def _can_send(self) -> Partner:
        out = self.hl7v2.out if self.hl7v2 is not None else None
        if out is not None and self.transports.find_endpoint(out.transport, sends=True) is None:
            raise ValueError(
                f"`hl7v2.out` sends by `{out.transport}`, for which `transports.{out.transport}` has to say where to."
            )
        return self

    def locate(self, *keys: str | int) -> str:
        """File and line of a key, as faults are told; "" for a partner of no file."""
        if self._path is None:
            return ""
        return f"`{self._path}`, line {find_line(self._path.read_text(encoding='utf-8'), keys)}: "


Partners = Mapping[str, Partner]

_TABLES: Mapping[tuple[str | int, ...], type[Section]] = {
    (): Partner,
    ("transports",): Transports,
    ("transports", "folder"): FolderEndpoint,
    ("transports", "mllp"): MllpEndpoint,
    ("transports", "http"): HttpEndpoint,
    ("hl7v2",): Hl7v2Section,
    ("hl7v2", "senders"): Hl7v2Side,
    ("hl7v2", "receivers"): Hl7v2Side,
    ("hl7v2", "custom_fields"): Hl7v2Field,
    ("hl7v2", "out"): Hl7v2OutSection,
    ("hl7v2", "out", "sending"): Hl7v2Side,
    ("hl7v2", "out", "receiving"): Hl7v2Side,
    ("hl7v2", "out", "send"): Hl7v2Send,
    ("x12",): X12Section,
    ("x12", "ours"): X12OwnSide,
    ("x12", "theirs"): X12Side,
    ("x12", "separators"): X12Separators,
}


def read_partners(folders: Iterable[Path]) -> Partners:
    """The partners of all files `*.toml`, by name. Raises WrongPartner with every fault that there is."""
    partners: dict[str, Partner] = {}
    places: dict[str, Path] = {}
    faults: list[str] = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.toml"))):
        try:
            partner = read_partner(path)
        except WrongPartner as error:
            faults.append(str(error))
            continue
        if partner.name in places:
            faults.append(f"`{path}`: the partner `{partner.name}` is in `{places[partner.name]}` as well; keep one.")
        partners[partner.name], places[partner.name] = partner, path
    faults += _list_double_envelopes(partners, places)
    if faults:
        raise WrongPartner("\n".join(faults))
    return partners


def _list_double_envelopes(partners: Partners, places: Mapping[str, Path]) -> Iterator[str]:
    """The partners whose interchanges could be told from another's by nothing, which would be taken for the other's."""
    known: dict[tuple[str, ...], str] = {}
    for name, partner in partners.items():
        section = partner.x12
        if section is None:
            continue
        ours, theirs = section.ours, section.theirs
        other = known.setdefault((ours.qualifier, ours.id, theirs.qualifier, theirs.id, section.usage), name)
        if other != name:
            yield (
                f"`{places[name]}`: the partner `{name}` has the ids and the usage of `{other}` in its table `x12`, so "
                "that nobody can tell whose an interchange is; put the payers of both into one file."
            )


def read_partner(path: Path) -> Partner:
    """The partner of one file. Raises WrongPartner."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise WrongPartner(f"`{path}`: it has more than {LARGEST_FILE} bytes, the most that are read.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WrongPartner(f"`{path}`: it cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise WrongPartner(f"`{path}`: it is not UTF-8 text.") from None
    try:
        partner = Partner.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        line = place[1] if place else str(text.count("\n") + 1)
        reason = _TOML_PLACE.sub("", str(error)).rstrip(".")
        raise WrongPartner(f"`{path}`, line {line}: it is not TOML: {reason}.") from None
    except ValidationError as error:
        raise WrongPartner("\n".join(_describe(path, text, fault) for fault in error.errors())) from None
    partner._path = path
    return partner


def _describe(path: Path, text: str, fault: Any) -> str:
    """One fault: file, line, key, reason."""
    keys = tuple(key for key in fault["loc"] if key != "[key]")
    name = ".".join(map(str, keys)) or "the file"
    return f"`{path}`, line {find_line(text, keys)}: `{name}`: {_explain(fault)}"


def _explain(fault: Any) -> str:
    if fault["type"] == "missing":
        return "It is needed, and is not there."
    if fault["type"] == "extra_forbidden":
        known = list(_list_keys(fault["loc"][:-1]))
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, 1)
        return f"There is no such key; did you mean `{near[0]}`?" if near else f"Keys are {', '.join(known)}."
    reason = fault["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{reason}." if isinstance(fault["input"], dict) else f"{reason}. It is `{fault['input']}`."


def _list_keys(keys: tuple[str | int, ...]) -> Iterator[str]:
    """The keys that the table at a place takes."""
    table = _TABLES.get(keys) or _TABLES.get(tuple(key for key in keys if isinstance(key, str)), Translation)
    return (field.alias or name for name, field in table.model_fields.items())


def find_line(text: str, keys: tuple[str | int, ...]) -> int:
    """The line (from 1) where a valid TOML text sets a key; of a key that it lacks, that of the table around it.

    `tomllib` tells no lines, so each statement is parsed by itself, below the header of its table.
    """
    deepest, line, header = 0, 1, ""
    statement: list[str] = []
    tables: Counter[str] = Counter()
    for number, written in enumerate(text.splitlines(), 1):
        statement.append(written)
        if len(statement) == 1 and written.lstrip().startswith("["):
            tables[written] += 1
            # the tables of a list stand below headers that are equal: the third is told by three of them
            header = "\n".join([written] * (tables[written] if written.lstrip().startswith("[[") else 1))
            statement = [""]
        try:
            tree = tomllib.loads("\n".join((header, *statement)))
        except tomllib.TOMLDecodeError:  # it goes on in the next line
            if len(statement) == _LONGEST_STATEMENT:
                break
            continue
        depth = _count_present(tree, keys)
        if depth > deepest:
            deepest, line = depth, number - len(statement) + 1
        statement = []
    return line


def _count_present(tree: Any, keys: tuple[str | int, ...]) -> int:
    """How many of the keys, from the outermost on, lead somewhere."""
    for depth, key in enumerate(keys):
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return depth
    return len(keys)
