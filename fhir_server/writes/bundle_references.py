"""References between the entries of one bundle, and conditional references (https://hl7.org/fhir/R4/http.html#trules)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from fhir_server.fhir.definitions import Definitions
from fhir_server.fhir.outcome import FhirError, Invalid, PreconditionFailed
from fhir_server.fhir.references import strip_base
from fhir_server.fhir.resource import Text
from fhir_server.fhir.rewrite import find_reference_paths, rewrite_references
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import parse_criteria
from fhir_server.requests.request import Caller, parse_query
from fhir_server.writes.resolve_targets import CriteriaScope, ResolvedTargets, Target, find_matches, take_turns

_RESTFUL = re.compile(r"(https?://.*/)([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})")
_CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?(.*)", re.DOTALL)
_URN_TEXT = re.compile("urn:(?:uuid|oid):", re.IGNORECASE).match
_VERSIONED = b"/_history/"
_URN = re.compile(rb'"reference"\s*:\s*"(?i:urn:(?:uuid|oid):)')


@dataclass(frozen=True, slots=True)
class BundleReferences:
    """The full URLs of a bundle's entries, by them the entries, and the references they stand for, `Type/id`."""

    references: Mapping[str, str]
    targets: Mapping[str, Target]
    prefixes: tuple[bytes, ...]
    relative: Mapping[str, set[bytes]]

    @classmethod
    def of(cls, targets: Iterable[Target]) -> BundleReferences:
        """The links of all entries that have a full URL and a resource. Raises Invalid when one stands for two."""
        first: dict[str, Target] = {}
        for target in targets:
            if not target.action.full_url or not target.id or target.action.method == "DELETE":
                continue
            other = first.setdefault(target.action.full_url, target)
            if other.reference != target.reference:
                raise Invalid(
                    f"The entries {other.action.where} and {target.action.where} have the same fullUrl "
                    f"`{target.action.full_url}`, so a reference to it could mean either; give each its own.",
                    code="value",
                    expression=(f"{other.action.where}.fullUrl", f"{target.action.where}.fullUrl"),
                )
        references = {full_url: target.reference for full_url, target in first.items()}
        prefixes = tuple(sorted({_find_prefix(url) for url in references}))
        return cls(references, first, prefixes, _group_relative_prefixes(references))

    def rewrite(self, text: Text, full_url: str, definitions: Definitions) -> Text:
        """The resource with its references to other entries replaced; relative ones are read from `full_url`."""
        if not self.references:
            return text
        match = _RESTFUL.fullmatch(full_url)
        root = match[1] if match else None

        def lookup(reference: str) -> str | None:
            found = self.references.get(reference)
            if found is None and root is not None and ":" not in reference:
                found = self.references.get(root + reference)
            return versioned.get(reference) if found is None else found

        versioned = self._resolve_versions(text, root or "") if _VERSIONED in text.raw else {}
        prefixes = self.prefixes if root is None else (*self.prefixes, *self.relative.get(root, ()))
        return rewrite_references(text, lookup, prefixes, definitions)

    def _resolve_versions(self, text: Text, root: str) -> dict[str, str]:
        """What references to a version of an entry become: its first version here. Raises Invalid for any other.

        A version of a resource that keeps its id is left alone unless it is the one in the bundle: it is stored here.
        """
        found: dict[str, str] = {}
        for path, reference in find_reference_paths(text.tree, text.type, lambda value: "/_history/" in value):
            url, _, version = reference.partition("/_history/")
            full_url = url if url in self.references else root + url
            if full_url not in self.references:
                continue
            sent, stored = _number_version(self.targets[full_url])
            if stored:
                found[reference] = f"{self.references[full_url]}/_history/{stored}"
            elif version == sent or not full_url.endswith(f"/{self.references[full_url]}"):
                raise Invalid(
                    f"The reference `{reference}` names a version of the entry `{full_url}`, which gets its number "
                    "when it is stored; leave `/_history/…` out.",
                    code="value",
                    expression=(path,),
                )
        return found


def _number_version(target: Target) -> tuple[str, int]:
    """The version that an entry has for its sender, and the one that it gets here: 1 by a POST, 0 for unknown."""
    text = target.action.text
    meta = text.tree.get("meta") if text is not None else None
    sent = meta.get("versionId") if isinstance(meta, dict) else None
    is_first = target.action.method == "POST" and target.create and not target.found
    return sent if isinstance(sent, str) else "", int(is_first)


def _group_relative_prefixes(urls: Iterable[str]) -> dict[str, set[bytes]]:
    """What references relative to each root among the full URLs begin with: `https://…/fhir/` → `Patient/` …"""
    relative: dict[str, set[bytes]] = {}
    for match in filter(None, map(_RESTFUL.fullmatch, urls)):
        relative.setdefault(match[1], set()).add(f"{match[2]}/".encode())
    return relative


def _find_prefix(url: str) -> bytes:
    """What a text has to hold to be worth a closer look: the scheme and authority of a full URL."""
    match = _RESTFUL.fullmatch(url)
    return (match[1] if match else url[:9]).encode()


async def look_up_conditional_references(
    context: Context, resolved: ResolvedTargets, texts: Iterable[Text], caller: Caller
) -> None:
    """Ask the store about the conditional references of many resources together; what cannot be read is left alone."""
    for number, text in enumerate(texts):
        for _, reference in find_reference_paths(text.tree, text.type, lambda value: "?" in value):
            match = _CONDITIONAL.fullmatch(strip_base(reference, context.bases.include(caller.base)))
            if match and match[1] in context.types and (match[1], match[2]) not in resolved.criteria:
                with suppress(FhirError):
                    where = await parse_criteria(context, match[1], parse_query(match[2]), caller)
                    resolved.criteria[match[1], match[2]] = where
        await take_turns(number)
    if len(resolved.criteria) > 1:
        asked = [(type, where) for (type, _), where in resolved.criteria.items()]
        await resolved.look_up(context, asked, caller)


async def resolve_conditional_references(
    context: Context, resolved: ResolvedTargets, text: Text, caller: Caller
) -> Text:
    """The resource with each `Type?criteria` reference replaced by the one match; 412 when there is not exactly one.

    They may be written relative to the base URL or below it.
    """
    found: dict[str, str] = {}
    for path, reference in find_reference_paths(text.tree, text.type, lambda value: "?" in value):
        match = _CONDITIONAL.fullmatch(strip_base(reference, context.bases.include(caller.base)))
        if match and match[1] not in context.types:
            raise PreconditionFailed(
                f"The conditional reference `{reference}` cannot be resolved: `{match[1]}` is no resource type of this "
                "server.",
                expression=(path,),
            )
        if match and reference not in found:
            found[reference] = await _find_one_match(context, resolved, (match[1], match[2]), path, caller)
    if not found:
        return text
    return rewrite_references(text, found.get, (), context.definitions)


async def _find_one_match(
    context: Context, resolved: ResolvedTargets, criteria: tuple[str, str], path: str, caller: Caller
) -> str:
    type, query = criteria
    try:
        where = resolved.criteria.get(criteria) or await parse_criteria(context, type, parse_query(query), caller)
    except FhirError as error:
        raise error.relocate(path) from None
    ids = resolved.referred.get(criteria)
    if ids is None:
        ids = resolved.referred[criteria] = await find_matches(context, resolved, CriteriaScope(type, where), caller)
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
    for path, reference in find_reference_paths(text.tree, type, lambda value: _URN_TEXT(value) is not None):
        raise Invalid(
            f"The reference `{reference}` names no entry of this bundle; correct it, or add one with that fullUrl.",
            code="value",
            expression=(path,),
        )
