"""CWE, CE, CNE, CF, IS and ID become CodeableConcept, Coding, code, string and boolean.

https://www.hl7.eu/HL7v2x/v28/std28/ch02A.html#Heading16. A translated coding comes first, the original stays beside it.
"""

from __future__ import annotations

from typing import Any

from mappers.hl7v2.context import Cell
from mappers.hl7v2.er7 import Composite
from mappers.hl7v2.vocabulary import TERMINOLOGY, find_system, translate

TRIPLES = ((1, 7, 14), (4, 8, 17), (10, 13, 20))
"""First component of each coding of a CWE, with those of its version and its object identifier."""


def name_field(cell: Cell) -> str:
    """`IN1-17`, the name by which a site translates the codes of a field."""
    return f"{cell.location.segment}-{cell.location.field}"


def cwe_to_codeable_concept(value: Composite, cell: Cell) -> dict[str, Any] | None:
    """A CodeableConcept with every coding of the CWE; an unknown code of a vocabulary stays and is told."""
    codings: list[dict[str, Any]] = []
    for first, version, oid in TRIPLES:
        if len(value.parts) < first:
            break
        coding = _read_coding(value, (first, version, oid), cell)
        if coding and coding not in codings:
            codings.append(coding)
    text = value.text(9)
    translated = cell.vocabulary or name_field(cell) in cell.context.partner.translations
    if codings and translated and (code := codings[0].get("code")):
        target = translate(code, cell.vocabulary, name_field(cell), cell.context.partner)
        if target is None:
            _tell_unknown(code, cell)
        elif target.code and (target.code != code or target.system != codings[0].get("system")):
            if target.system and "system" not in codings[0] and target.code == code:
                codings.pop(0)
            codings.insert(0, _write_coding(target.code, target.system, target.display))
    if codings and all(set(coding) == {"display"} for coding in codings):
        text, codings = text or codings[0]["display"], []
    concept: dict[str, Any] = {}
    if codings:
        concept["coding"] = codings
    if text:
        concept["text"] = text
    return concept or None


def _read_coding(value: Composite, numbers: tuple[int, int, int], cell: Cell) -> dict[str, Any] | None:
    first, version, oid = numbers
    code, display = value.text(first), value.text(first + 1)
    if not code and not display:
        return None
    name = value.text(first + 2)
    coding = _write_coding(code, find_system(name, value.text(oid), cell.context.partner) if code else "", display)
    if code and (edition := value.text(version)):
        coding["version"] = edition
    return coding or None


def _write_coding(code: str, system: str, display: str) -> dict[str, Any]:
    pairs = (("system", system), ("code", " ".join(code.split())), ("display", display))
    return {name: each for name, each in pairs if each}


def _tell_unknown(code: str, cell: Cell) -> None:
    table = cell.vocabulary or name_field(cell)
    text = f"The code `{code[:40]}` of {name_field(cell)} is not in the table {table}; it is kept as it is."
    cell.context.tell(text, cell.location)


def cwe_to_coding(value: Composite, cell: Cell) -> dict[str, Any] | None:
    """The first coding, translated."""
    concept = cwe_to_codeable_concept(value, cell)
    if concept is None:
        return None
    return concept["coding"][0] if "coding" in concept else {"display": concept["text"]}


def cwe_to_code(value: Composite, cell: Cell) -> str | None:
    """The code that the vocabulary gives; without one the code itself, and nothing for a code that is not in it."""
    code = value.text()
    if not code or not cell.vocabulary:
        return code or None
    target = translate(code, cell.vocabulary, name_field(cell), cell.context.partner)
    if target is None:
        text = f"The code `{code[:40]}` of {name_field(cell)} is not in the table {cell.vocabulary}; it is left out."
        cell.warn("103", text)
        return None
    return target.code or None


def cwe_to_text(value: Composite, cell: Cell) -> str | None:
    """What a person reads: the original text, else the display, else the code."""
    return value.text(9) or value.text(2) or value.text(5) or value.text(1) or None


def st_to_string(value: Composite, cell: Cell) -> str | None:
    """A text; components that a text should not have are joined again."""
    parts = [subs for subs in value.parts if any(subs)]
    if len(parts) > 1 or (parts and len(parts[0]) > 1):
        return " ".join(sub for subs in parts for sub in subs if sub).strip() or None
    return value.text().strip() or None


def st_to_code(value: Composite, cell: Cell) -> str | None:
    """The first component alone, such as the number of a CX."""
    return value.text() or None


def st_to_concept(value: Composite, cell: Cell) -> dict[str, Any] | None:
    """A CodeableConcept with nothing but text."""
    text = st_to_string(value, cell)
    return {"text": text} if text else None


def id_to_boolean(value: Composite, cell: Cell) -> bool | None:
    """Y and N of HL70136."""
    code = value.text().upper()
    if code in ("Y", "N"):
        return code == "Y"
    if code:
        text = f"The field says `{code[:20]}` where only Y and N are known; it is left out."
        cell.warn("103", text)
    return None


def build_concept(system: str, code: str, display: str = "") -> dict[str, Any]:
    """A CodeableConcept that a table fixes; systems without a scheme are those of HL7's terminology."""
    full = system if "://" in system or system.startswith("urn:") else TERMINOLOGY + system
    return {"coding": [_write_coding(code, full, display)]}
