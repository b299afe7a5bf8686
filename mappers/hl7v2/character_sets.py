"""Octets become text by MSH-18, the character set of a message.

https://www.hl7.eu/HL7v2x/v28/std28/ch02.html, section 2.14.9.18 and table HL70211.
"""

from __future__ import annotations

from typing import NamedTuple

from mappers.hl7v2.issues import Issue, Location, refuse, warn

CHARACTER_SETS = {
    "ASCII": "ascii",
    "8859/1": "iso8859-1",
    "8859/2": "iso8859-2",
    "8859/3": "iso8859-3",
    "8859/4": "iso8859-4",
    "8859/5": "iso8859-5",
    "8859/6": "iso8859-6",
    "8859/7": "iso8859-7",
    "8859/8": "iso8859-8",
    "8859/9": "iso8859-9",
    "8859/15": "iso8859-15",
    "UNICODE UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "UTF-8": "utf-8",
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
}
"""Names of HL70211 that are read here, with the codec of each."""

PLACE = Location("MSH", 1, 18)


class Decoded(NamedTuple):
    """The text of a message, None where its character set is not read here, and the issues."""

    text: str | None
    issues: tuple[Issue, ...]


def decode_message(octets: bytes, default: str = "") -> Decoded:
    """Decodes by MSH-18; without it by the partner's default, else as UTF-8, else as Latin-1 with a warning.

    `default` is a name of HL70211 or empty.
    """
    name = _read_name(octets) or default
    if name and name not in CHARACTER_SETS:
        names = ", ".join(CHARACTER_SETS)
        text = f"The character set `{name}` of MSH-18 is not read here. Send one of {names}."
        return Decoded(None, (refuse("103", text, PLACE, rejected=True),))
    codec = CHARACTER_SETS.get(name, "utf-8")
    try:
        return Decoded(octets.decode(codec), ())
    except UnicodeDecodeError as error:
        told = f"MSH-18 says `{name}`" if name else "MSH-18 is empty"
        text = f"{told}, but octet {error.start + 1} is not {codec}; the message is read as Latin-1."
        return Decoded(octets.decode("latin-1"), (warn("103", text, PLACE),))


def _read_name(octets: bytes) -> str:
    """MSH-18, the first repetition, read before the text can be: header fields are ASCII up to there."""
    start = octets[:4096].find(b"MSH")
    if start < 0:
        return ""
    line = octets[start : start + 4096].replace(b"\n", b"\r").split(b"\r", 1)[0].decode("latin-1")
    fields = line.split(line[3:4] or "|")
    encoding = fields[1] if len(fields) > 1 else ""
    value = fields[17] if len(fields) > 17 else ""
    repetition = encoding[1:2]
    return (value.split(repetition)[0] if repetition else value).strip()
