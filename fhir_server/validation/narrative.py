"""Narrative XHTML: allowed elements and attributes, well formed, not empty (https://hl7.org/fhir/R4/narrative.html#xhtml).

The elements are those of HTML 4.0, chapters 7 to 11 and 15, with links, images and maps. One pass of expat, which reads
no entity that is declared outside and is given no document type.
"""

from __future__ import annotations

import html.entities
import re
from xml.parsers import expat

ELEMENTS = frozenset(
    """
    a abbr acronym address area b bdo big blockquote br caption cite code col colgroup dd dfn div dl dt em h1
    h2 h3 h4 h5 h6 hr i img kbd li map ol p pre q samp small span strong sub sup table tbody td tfoot th thead
    tr tt ul var del ins
    """.split()  # noqa: SIM905 - a table of words
)
ATTRIBUTES = frozenset(
    """
    abbr accesskey align alt axis border cellpadding cellspacing char charoff charset cite class colspan coords
    datetime dir headers height href hreflang id ismap lang longdesc name nohref nowrap rel rev rowspan rules
    scope shape span src start style summary tabindex title type usemap valign value width xml:lang xmlns frame
    xml:space xml:id
    """.split()  # noqa: SIM905 - a table of words
)
_SCRIPT = re.compile(r"\s*(?:javascript|vbscript|data(?!:image/))\s*:", re.IGNORECASE)
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,31});")
_XML_ENTITIES = frozenset({"lt", "gt", "amp", "quot", "apos"})
_CONTENT = frozenset({"img", "hr", "table"})


class _Refused(Exception):
    """What is not allowed, as the end of a sentence."""


def find_fault(div: str) -> tuple[str, str] | None:
    """(`txt-1` or `txt-2`, what is wrong as the end of a sentence); None for a narrative that R4 allows."""
    content = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal content
        if name not in ELEMENTS:
            raise _Refused(f"has the element `{name[:40]}`, which is not allowed in a narrative")
        content = content or name in _CONTENT
        for attribute, value in attributes.items():
            if attribute not in ATTRIBUTES and not attribute.startswith(("xmlns:", "data-")):
                raise _Refused(f"has the attribute `{attribute[:40]}` on `{name}`, which is not allowed in a narrative")
            if attribute in ("href", "src") and _SCRIPT.match(value):
                raise _Refused(f"has a script in the attribute `{attribute}` of `{name}`")

    def read(text: str) -> None:
        nonlocal content
        content = content or not text.isspace()

    def refuse(*_: object) -> None:
        raise _Refused("has a document type, which a narrative has not")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.CharacterDataHandler = start, read
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(_ENTITY.sub(_replace_entity, div), True)
    except expat.ExpatError as error:
        return "txt-1", f"is not well-formed XHTML: {expat.errors.messages[error.code]}"
    except _Refused as error:
        return "txt-1", str(error)
    return None if content else ("txt-2", "has no content")


def _replace_entity(match: re.Match[str]) -> str:
    """The character of an HTML entity; XML's own stay."""
    name = match[1]
    return match[0] if name in _XML_ENTITIES else html.entities.html5.get(f"{name};", match[0])
