"""MRG: the identifiers of a patient, account or visit move to another, and references follow.

https://www.hl7.eu/HL7v2x/v28/std28/ch03.html, section 3.6. A18, A34, A35 and A36 are older forms of A40 and A41.
"""

from __future__ import annotations

from typing import NamedTuple

from mappers.hl7v2.changes import Change, Identity, Resource
from mappers.hl7v2.context import Context
from mappers.hl7v2.datatypes.identifiers import read_identity
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.rows import Draft, fill

MERGES = {
    "A18": ("Patient",),
    "A34": ("Patient",),
    "A35": ("Account",),
    "A36": ("Patient", "Account"),
    "A40": ("Patient",),
    "A41": ("Account",),
    "A42": ("Encounter",),
}
"""What each event merges."""

FIELDS = {"Patient": (1, "PID-3"), "Account": (3, "PID-18"), "Encounter": (5, "PV1-19")}
"""The field of MRG that names the prior, and that which names the survivor."""


class Merge(NamedTuple):
    """A prior resource, known by any of its identities, becomes part of a survivor."""

    type: str
    survivor: Change
    prior: tuple[Identity, ...]


def mrg_to_merges(segment: Segment, survivors: dict[str, Change | None], context: Context) -> list[Merge]:
    """What MRG says to merge; the survivors get the identifiers of the prior with the use `old`."""
    merges = []
    for kind in MERGES.get(context.event, ()):
        draft = Draft({})
        fill(draft, segment, kind, context)
        identifiers = draft.resource.get("identifier", [])
        identities = tuple(identity for each in identifiers if (identity := read_identity(each)))
        survivor = survivors.get(kind)
        number, surviving = FIELDS[kind]
        if not identities or not survivor:
            where = surviving if identities else f"MRG-{number}"
            text = f"{where} is empty: a merge needs the surviving and the prior number."
            context.refuse("101", text, segment.place(number))
            continue
        own = {read_identity(each) for each in survivor.resource.get("identifier", [])}
        if own & set(identities):
            text = "The surviving and the prior number are the same: nothing can be merged."
            context.refuse("204", text, segment.place(number))
            continue
        survivor.resource.setdefault("identifier", []).extend(retire(each) for each in identifiers)
        merges.append(Merge(kind, survivor, identities))
    return merges


def retire(identifier: Resource) -> Resource:
    """The identifier as one that is not used any more."""
    return {**identifier, "use": "old"}


def end_prior(prior: Resource, survivor: str) -> Resource:
    """The prior as it stays: without identifiers, inactive, with a link to the survivor where its type has one."""
    ended = {name: value for name, value in prior.items() if name != "identifier"}
    if ended["resourceType"] == "Patient":
        links = [link for link in ended.get("link", []) if link.get("type") != "replaced-by"]
        ended |= {"active": False, "link": [*links, {"other": {"reference": survivor}, "type": "replaced-by"}]}
    elif ended["resourceType"] == "Account":
        ended |= {"status": "entered-in-error", "partOf": {"reference": survivor}}
    else:
        ended |= {"status": "entered-in-error"}
    return ended


def join_survivor(survivor: Resource, prior: Resource) -> Resource:
    """The survivor with all identifiers of the prior, and for a patient a link to it."""
    joined = dict(survivor)
    known = {read_identity(each) for each in joined.get("identifier", [])}
    moved = [retire(each) for each in prior.get("identifier", []) if read_identity(each) not in known]
    if moved:
        joined["identifier"] = [*joined.get("identifier", []), *moved]
    if joined["resourceType"] == "Patient":
        link = {"other": {"reference": f"Patient/{prior['id']}"}, "type": "replaces"}
        if link not in joined.get("link", []):
            joined["link"] = [*joined.get("link", []), link]
    return joined


def repoint(resource: object, prior: str, survivor: str) -> object:
    """A copy of a resource in which references to the prior lead to the survivor."""
    if isinstance(resource, dict):
        return {
            name: survivor if name == "reference" and value == prior else repoint(value, prior, survivor)
            for name, value in resource.items()
        }
    if isinstance(resource, list):
        return [repoint(each, prior, survivor) for each in resource]
    return resource
