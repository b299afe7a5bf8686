"""References between the entries of one bundle, and conditional references (https://hl7.org/fhir/R4/http.html#trules)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import Invalid, PreconditionFailed
from fhir_server.fhir.resource import Text
from fhir_server.fhir.rewrite import reference_paths, rewrite
from fhir_server.interactions.conditional import criteria_clause, criteria_pairs
from fhir_server.interactions.exchange import Context
from fhir_server.interactions.identify import Identified, Target, matching

_RESTFUL = re.compile(r"(https?://.*/)([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})")
_CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?(.+)")
_URN = re.compile(rb'"reference"\s*:\s*"urn:(?:uuid|oid):')


@dataclass(frozen=True, slots=True)
class Links:
    """What the full URLs of a bundle's entries became: full URL → `Type/id`."""

    references: Mapping[str, str]
    prefixes: tuple[bytes, ...]

    @classmethod
    def of(cls, targets: Iterable[Target]) -> Links:
        """The links of all entries that have a full URL and a resource."""
        references = {
            target.action.full_url: target.reference
            for target in targets
            if target.action.full_url and target.id and target.action.method != "DELETE"
        }
        return cls(references, tuple(sorted({_prefix(url) for url in references})))

    def rewritten(self, text: Text, full_url: str, definitions: Definitions) -> Text:
        """The resource with its references to other entries replaced; relative ones are read from `full_url`."""
        if not self.references:
            return text
        match = _RESTFUL.fullmatch(full_url)
        root = match[1] if match else None

        def lookup(reference: str) -> str | None:
            found = self.references.get(reference)
            if found is None and root is not None and ":" not in reference:
                found = self.references.get(root + reference)
            return found

        return rewrite(text, lookup, self.prefixes, definitions)


def _prefix(url: str) -> bytes:
    """What a text has to hold to be worth a closer look: the scheme and authority of a full URL."""
    match = _RESTFUL.fullmatch(url)
    return (match[1] if match else url[:9]).encode()


async def conditional_references(context: Context, identified: Identified, text: Text, base: str) -> Text:
    """The resource with each `Type?criteria` reference replaced by the one match; 412 when there is not exactly one."""
    found: dict[str, str] = {}
    for path, reference in reference_paths(text.tree, text.type, lambda value: "?" in value):
        match = _CONDITIONAL.fullmatch(reference)
        if match and match[1] in context.types and reference not in found:
            found[reference] = await _one_match(context, identified, (match[1], match[2]), path, base)
    if not found:
        return text
    return rewrite(text, found.get, (), context.definitions)


async def _one_match(context: Context, identified: Identified, criteria: tuple[str, str], path: str, base: str) -> str:
    type, query = criteria
    where = criteria_clause(context, type, criteria_pairs(query), base)
    ids = await matching(context, identified, type, where, 1, base)
    if len(ids) != 1:
        count = "nothing" if not ids else "more than one resource"
        raise PreconditionFailed(
            f"The conditional reference `{type}?{query}` matches {count}; it must match exactly one resource.",
            expression=(path,),
        )
    return f"{type}/{ids[0]}"


def refuse_unresolved(text: Text) -> None:
    """Refuse `urn:uuid:` and `urn:oid:` references that name no entry of the bundle."""
    if not _URN.search(text.raw):
        return
    type = text.type
    if type in ("Bundle", "Parameters"):
        return
    for path, reference in reference_paths(text.tree, type, lambda value: value.startswith(("urn:uuid:", "urn:oid:"))):
        raise Invalid(
            f"The reference `{reference}` names no entry of this bundle; correct it, or add the entry with that fullUrl.",
            code="value",
            expression=(path,),
        )
