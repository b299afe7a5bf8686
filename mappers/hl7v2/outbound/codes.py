"""CodeableConcept, Coding, code, boolean and string become CWE, ID and ST; vocabularies are read from right to left."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.er7 import DELETE, Composite
from mappers.hl7v2.outbound.receiver import Writing
from mappers.hl7v2.partner import Partner, Target
from mappers.hl7v2.vocabulary import SYSTEMS, TERMINOLOGY, read_concepts, translate

Part = str | list[str]


def compose(*parts: Part) -> Composite | None:
    """A repetition of its components, the empty ones at its end left out; None where nothing is told."""
    told = [tuple(part) if isinstance(part, list) else (part,) for part in parts]
    while told and not any(told[-1]):
        told.pop()
    if any(each == DELETE for part in told for each in part):
        return None
    return Composite(tuple(_strip(part) for part in told)) if told else None


def _strip(part: tuple[str, ...]) -> tuple[str, ...]:
    while len(part) > 1 and not part[-1]:
        part = part[:-1]
    return part or ("",)


def read_first_code(concept: Resource | None) -> str:
    """The code of the first coding of a CodeableConcept, "" without one."""
    codings = (concept or {}).get("coding") or [{}]
    return str(codings[0].get("code", ""))


def find_name(system: str, partner: Partner) -> tuple[str, str]:
    """The name of a code system in HL70396, and its object identifier where that alone tells it."""
    for name, uri in (*partner.code_systems.items(), *SYSTEMS.items()):
        if uri == system:
            return name, ""
    if system.startswith(f"{TERMINOLOGY}v2-"):
        return f"HL7{system.removeprefix(f'{TERMINOLOGY}v2-')}", ""
    if system.startswith("urn:oid:"):
        return "", system.removeprefix("urn:oid:")
    own = f"{partner.root}/code-system/"
    return (unquote(system.removeprefix(own)) if system.startswith(own) else system), ""


def find_code(code: str, system: str, vocabulary: str, field: str, partner: Partner) -> str:
    """The v2 code that the inbound tables translate to a code: the partner's, else the first; "" without one."""
    tables: list[dict[str, Target]] = [dict(partner.translations.get(key, {})) for key in (field, vocabulary) if key]
    for table in (*tables, read_concepts(vocabulary) if vocabulary else {}):
        for name, target in table.items():
            told = Target(*target)
            if told.code == code and (not system or not told.system or told.system == system):
                known = translate(name, vocabulary, field, partner)
                if known and Target(*known).code == code:
                    return name
    return ""


def write_code(value: Any, vocabulary: str, field: str, writing: Writing) -> Composite | None:
    """A code of FHIR as the code of v2; the same code where the field has no vocabulary."""
    if not vocabulary:
        return compose(str(value))
    return compose(find_code(str(value), "", vocabulary, field, writing.receiver.partner))


def write_concept(concept: Resource, vocabulary: str, field: str, writing: Writing) -> Composite | None:
    """Takes up to three codings and the text; of a vocabulary the v2 code comes first.

    Where the original v2 coding stands behind its translation, as the inbound mapper leaves it, it alone is sent.
    """
    partner = writing.receiver.partner
    codings: list[Resource] = concept.get("coding", [])
    parts = [""] * 20
    if codings and (vocabulary or field in partner.translations):
        first = codings[0]
        system = first.get("system", "")
        code = find_code(first.get("code", ""), system, vocabulary, field, partner)
        original = next((each for each in codings[1:] if _means(each, first, vocabulary, field, partner)), None)
        if code and original is None:
            _take_coding(codings)
            parts[0], parts[1] = code, first.get("display", "") if code == first.get("code") else ""
        elif original is not None:
            codings.pop(0)
    triples = [triple for triple in ((0, 6, 13), (3, 7, 16), (9, 12, 19)) if not parts[triple[0]]]
    for place, version, oid in triples[: len(codings)]:
        coding = _take_coding(codings)
        name, number = find_name(coding.get("system", ""), partner)
        parts[place], parts[place + 1] = coding.get("code", ""), coding.get("display", "")
        parts[place + 2] = name if parts[place] else ""
        parts[version], parts[oid] = coding.get("version", ""), number
    return _finish_concept(concept, parts)


def _take_coding(codings: list[Resource]) -> Resource:
    """Takes the first coding; what a CWE has no component for, and a system without a code, moves to the end."""
    coding = codings.pop(0)
    said = {"code", "display", "version", *(["system"] if coding.get("code") else [])}
    if rest := {name: value for name, value in coding.items() if name not in said}:
        codings.append(rest)
    return coding


def _means(coding: Resource, target: Resource, vocabulary: str, field: str, partner: Partner) -> bool:
    known = translate(str(coding.get("code", "")), vocabulary, field, partner)
    return bool(known) and Target(*(known or ("",))).code == target.get("code")


def _finish_concept(concept: Resource, parts: list[str]) -> Composite | None:
    """CWE.9 is the text; a text alone stands in CWE.2, where every version has it."""
    text = concept.pop("text", "")
    if text and not any(parts):
        parts[1] = text
    else:
        parts[8] = text
    return compose(*parts)


def write_coding(coding: Resource, vocabulary: str, field: str, writing: Writing) -> Composite | None:
    """A Coding as a CWE of one triple."""
    concept: Resource = {"coding": [dict(coding)]}
    written = write_concept(concept, vocabulary, field, writing)
    coding.clear()
    return written


def write_boolean(value: Any) -> Composite | None:
    """Y and N."""
    return compose("Y" if value is True else "N")
