"""What a message needs to know of the store: who has its identifiers, whose Schedules, what refers to a prior."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fhir_server.requests.merges import announce_merge
from fhir_server.search.entries import SEPARATOR
from fhir_server.search.query import Clause, Equals, Or, Query, Scope
from fhir_server.store.operations import VersionIs
from fhir_server.writes.state import State
from mappers.hl7v2.changes import Identity
from mappers.hl7v2.mapping import Mapping as Message
from mappers.hl7v2.needs import REPOINTED_AT_ONCE, Need
from mappers.hl7v2.needs import State as Known

Resource = dict[str, Any]
Matches = dict[str, list[Resource]]

ORDERED_BY = frozenset({"Patient", "Encounter", "Account"})
"""Types of which messages that name the same identifier are carried out one after the other."""

RECORDS = frozenset({"AuditEvent", "Provenance"})
"""Types whose resources say what happened."""


def name_locks(needs: Iterable[Need]) -> list[str]:
    """The locks of whom and what a message is about."""
    return [
        _name_lock(need.type, identity) for need in needs if need.type in ORDERED_BY for identity in need.identities
    ]


def _name_lock(type: str, identity: Identity) -> str:
    return f"hl7v2 {type} {identity.system}|{identity.value}"


async def read_state(state: State, message: Message, needs: Sequence[Need]) -> Known:
    """The resources that a message may be about, as `build_bundle` takes them; `needs` are those of the message."""
    matches = await _read_matches(state, needs)
    await _read_schedules(state, message, matches)
    slots = await _read_slots(state, matches) if message.context.partner.makes_slots else {}
    referrers = {}
    for number, merge in enumerate(message.merges):
        survivors = {each["id"] for each in matches.get(merge.survivor.url, ())}
        for prior in matches.get(f"prior {number}", ()):
            if prior["id"] not in survivors:
                reference = f"{merge.type}/{prior['id']}"
                referrers[reference] = await find_referrers(state, reference, REPOINTED_AT_ONCE + 1)
                if len(referrers[reference]) > REPOINTED_AT_ONCE:
                    await announce_merge(state.context)
    return Known(matches, referrers, slots)


async def _read_matches(state: State, needs: Sequence[Need]) -> Matches:
    """By key of a need its resources, all found in one look at the store.

    Asserts the version of what is found and, of identities that nothing has, that nothing has them; a lock of each of
    these keeps two messages from bringing the same at once.
    """
    wanted: dict[str, dict[Identity, list[str]]] = defaultdict(lambda: defaultdict(list))
    for need in needs:
        for identity in need.identities:
            wanted[need.type][identity].append(need.key)
    matches: Matches = {}
    absent = {type: dict(keys) for type, keys in wanted.items()}
    clauses = {type: _identify(keys) for type, keys in wanted.items()}
    resources = await state.search_types(clauses, (), brief=True) if clauses else ()
    seen = state.seen
    for tree, version in resources:
        resource, type = dict(tree), tree["resourceType"]
        state.assertions.append(VersionIs(type, tree["id"], version))
        own = [(each.get("system"), each.get("value")) for each in resource.get("identifier", ())]
        for key in dict.fromkeys(key for each in own for key in wanted[type].get(each, ())):  # type: ignore[call-overload]
            matches.setdefault(key, []).append(resource)
        for each in own:
            absent[type].pop(each, None)  # type: ignore[call-overload]
    for type, keys in absent.items():
        if keys:
            state.assert_none(type, _identify(keys), seen)
            state.lock(_name_lock(type, identity) for identity in keys)
    return matches


def _identify(identities: Iterable[Identity]) -> Clause:
    return Equals("identifier", tuple(f"{value}{SEPARATOR}{system}" for system, value in identities))


async def _read_schedules(state: State, message: Message, matches: Matches) -> None:
    """A Schedule that an actor has already is the one that the message means, whoever has made it."""
    for change in message.changes.of_type("Schedule"):
        actor = message.changes.find(change.resource["actor"][0])
        known = matches.get(actor.url, ()) if actor is not None else ()
        if change.url not in matches and known:
            where = Equals("actor", (f"{known[0]['resourceType']}/{known[0]['id']}",))
            found = await state.search("Schedule", where)
            if found:
                matches[change.url] = [dict(found[0].tree)]


async def _read_slots(state: State, matches: Mapping[str, Sequence[Resource]]) -> dict[str, list[Resource]]:
    """By reference of a known Appointment the Slots that it names."""
    slots: dict[str, list[Resource]] = {}
    appointments = [each for found in matches.values() for each in found if each["resourceType"] == "Appointment"]
    for appointment in appointments:
        for slot in appointment.get("slot", ()):
            type, _, id = slot.get("reference", "").partition("/")
            stored = await state.read(type, id) if type == "Slot" else None
            if stored is not None:
                slots.setdefault(f"Appointment/{appointment['id']}", []).append(dict(stored.tree))
    return slots


async def find_referrers(state: State, reference: str, most: int) -> list[Resource]:
    """The resources that refer to one (`Type/id`) by a search parameter, at most so many, with a version each.

    What tells of the past (Provenance, AuditEvent) is not among them: it was done to that one and no other.
    """
    target = reference.partition("/")[0]
    scopes = []
    for type in sorted(state.context.types - RECORDS):
        clause = _refers(state, type, target, reference)
        if clause is not None:
            scopes.append(Scope(type, clause))
    found: list[Resource] = []
    for scope in scopes:
        query = Query((scope,), count=most - len(found))
        for match in (await state.context.reader(state.caller).search(query)).matches:
            stored = await state.read(match.type, match.id)
            if stored is not None:
                found.append(dict(stored.tree))
        if len(found) >= most:
            break
    return found


def _refers(state: State, type: str, target: str, reference: str) -> Clause | None:
    """What the resources of a type match that refer to another; None for a type that cannot."""
    codes = [
        code
        for code, parameter in state.context.registry.parameters(type).items()
        if parameter.type == "reference" and (not parameter.targets or target in parameter.targets)
    ]
    clauses: list[Clause] = [Equals(code, (reference,)) for code in codes]
    return None if not clauses else clauses[0] if len(clauses) == 1 else Or(tuple(clauses))
