"""The ConceptMaps by which a partner's codes are translated, as they are stored when a message comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fhir_server.requests.criteria import parse_criteria
from fhir_server.search.escapes import escape
from fhir_server.workers.hl7v2_partners import FORMAT
from fhir_server.writes.state import State
from mappers.hl7v2.concept_maps import read_concept_map
from mappers.hl7v2.issues import Issue, warn
from mappers.hl7v2.partner import Partner, Target


async def add_concept_maps(state: State, partner: Partner, named: Mapping[str, str]) -> tuple[Partner, list[Issue]]:
    """The partner with the translations of its ConceptMaps, and what is to be said of those that are not stored.

    `named`: vocabulary or field → canonical URL. A code of the partner's own tables goes before that of a ConceptMap.
    """
    translations = dict(partner.translations)
    issues = []
    for name, url in named.items():
        found = await _read_targets(state, url)
        if found is None:
            text = f"The ConceptMap `{url}` for {name} is not stored, or not active; codes stay as they are."
            issues.append(warn("0", text))
        else:
            translations[name] = {**found, **partner.translations.get(name, {})}
    return replace(partner, translations=translations), issues


async def _read_targets(state: State, url: str) -> Mapping[str, Target] | None:
    """The targets by code; None where no active ConceptMap has the URL. Of several the first by id is taken."""
    pairs = (("url", escape(url)), ("status", "active"))
    where = await parse_criteria(state.context, "ConceptMap", pairs, state.caller)
    found = await state.search("ConceptMap", where, asserted=False)
    if not found:
        return None
    known: dict[str, tuple[object, Mapping[str, Target]]] = state.context.snapshots.setdefault(f"{FORMAT} maps", {})
    first = found[0]
    version = (first.tree["id"], first.version)
    if url not in known or known[url][0] != version:
        known[url] = (version, read_concept_map(first.tree))
    return known[url][1]
