r"""Escape sequences of ER7 text, read and written: `\F\ \S\ \T\ \R\ \E\ \P\ \X..\ \.br\ \H\ \N\`.

https://www.hl7.eu/HL7v2x/v28/std28/ch02.html, section 2.7. Text is unescaped after it was split at every level, so
that an escaped delimiter never splits.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEX = re.compile(r"X((?:[0-9A-Fa-f]{2})+)")
FORMAT = re.compile(r"\.(br|sp|fi|nf|in|ti|sk|ce)([+-]?[0-9]{0,3})")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that no text of FHIR holds."""

# The longest sequence that is looked for; what is longer between two escape characters is text.
LONGEST = 4096


class Delimiters(NamedTuple):
    """The characters that MSH-1 and MSH-2 name; an empty one is not used by the message."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""


def unescape(text: str, delimiters: Delimiters) -> tuple[str, str]:
    """The text that is meant, and the first sequence that is not understood ("" if all are).

    A sequence without end or meaning stays as written, and what follows it is read on.
    """
    escape = delimiters.escape
    if not escape or escape not in text:
        return text, ""
    parts: list[str] = []
    fault = ""
    position = 0
    while (start := text.find(escape, position)) >= 0:
        parts.append(text[position:start])
        end = text.find(escape, start + 1, start + LONGEST)
        meaning = _read_sequence(text[start + 1 : end], delimiters) if end > start else None
        if meaning is None:
            fault = fault or text[start : end + 1 if end > start else start + 12]
            parts.append(escape)
            position = start + 1
        else:
            parts.append(meaning)
            position = end + 1
    parts.append(text[position:])
    return "".join(parts), fault


def _read_sequence(code: str, delimiters: Delimiters) -> str | None:
    """What stands for the code of a sequence; highlighting is dropped, and None means that the code is unknown."""
    plain = {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        "P": delimiters.truncation or "#",
        "H": "",
        "N": "",
    }.get(code)
    if plain is not None:
        return plain
    if found := HEX.fullmatch(code):
        octets = bytes.fromhex(found[1])
        try:
            text = octets.decode("utf-8")
        except UnicodeDecodeError:
            text = octets.decode("latin-1")
        return None if CONTROL.search(text) else text
    if found := FORMAT.fullmatch(code):
        count = min(abs(int(found[2] or 1)), 20) if found[2] not in ("+", "-") else 1
        return {"br": "\n", "sp": "\n" * count, "sk": " " * count, "ce": "\n"}.get(found[1], "")
    return None


def escape_text(text: str, delimiters: Delimiters) -> str:
    """The text as it stands in a field, component or sub-component: `unescape` gives it back."""
    codes = {
        delimiters.escape: "E",
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.subcomponent: "T",
        delimiters.repetition: "R",
        "\r": "X0D",
        "\n": "X0A",
    }
    codes.pop("", None)
    if delimiters.truncation:
        codes[delimiters.truncation] = "P"
    escape = delimiters.escape
    if not escape or not any(character in text for character in codes):
        return text
    return "".join(f"{escape}{codes[each]}{escape}" if each in codes else each for each in text)
