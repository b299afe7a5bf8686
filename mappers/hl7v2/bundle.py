"""The changes of a message become a transaction Bundle, with or without knowledge of what is there already.

https://hl7.org/fhir/R4/http.html#transaction. Without it, a resource is created or replaced by conditional requests;
with it, a change is applied to the current resource and goes by id with the version that was read.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from mappers.hl7v2.apply import apply_change, is_same
from mappers.hl7v2.changes import Change, Identity, Resource
from mappers.hl7v2.invariants import mend_resource
from mappers.hl7v2.issues import Issue, has_errors, refuse, tell, warn
from mappers.hl7v2.mapping import Mapping
from mappers.hl7v2.merges import Merge, end_prior, join_survivor, repoint
from mappers.hl7v2.needs import REPOINTED_AT_ONCE, State, write_criteria
from mappers.hl7v2.partner import CHANGE, Partner
from mappers.hl7v2.patients import list_identities
from mappers.hl7v2.stamps import ALWAYS_STAMPED, ORDERED, RECORDED, read_stamp, write_stamp
from mappers.hl7v2.tasks import make_task

UPDATES = frozenset({"A08", "A31"})
BILLED = frozenset({"billed"})

TOLD = frozenset({"Patient", "Coverage", "Encounter", "ChargeItem"})
"""Types of which it is told that a message would change one and may not."""


class Built(NamedTuple):
    """The transaction Bundle, None where nothing may be stored, all issues of the message, and whom it is about.

    `patient`: the full URL or the reference of the first Patient, "" without one.
    """

    bundle: Resource | None
    issues: tuple[Issue, ...]
    patient: str = ""


def build_bundle(mapping: Mapping, state: State | None = None) -> Built:
    """Builds the transaction of a mapping. Pure: the same arguments give the same bundle."""
    issues = list(mapping.issues)
    if has_errors(issues):
        return Built(None, tuple(issues))
    builder = _Builder(mapping, state, issues)
    builder.resolve()
    for change in mapping.changes:
        builder.add(change)
    for index, merge in enumerate(mapping.merges):
        builder.merge(index, merge)
    return builder.finish()


class _Builder:
    """Gathers the entries of one bundle; lives no longer than `build_bundle`."""

    def __init__(self, mapping: Mapping, state: State | None, issues: list[Issue]) -> None:
        self.mapping, self.state, self.issues = mapping, state, issues
        self.context = mapping.context
        self.partner: Partner = mapping.context.partner
        self.current: dict[str, Resource] = {}
        self.references: dict[str, Resource] = {}
        self.entries: dict[str, Resource] = {}
        self.updated: dict[str, str] = {}

    def resolve(self) -> None:
        """Finds the current resource of each change, and what references to it become."""
        matches = self.state.matches if self.state else {}
        for change in self.mapping.changes:
            found = matches.get(change.url, ())
            own = [each for each in found if change.identity in list_identities(each)]
            first = next(iter([*own, *found]), None)
            if len(found) > 1:
                text = f"{len(found)} {change.type} resources have a number of the message; that of the first is taken."
                self.issues.append(warn("0", text))
            if first is not None:
                self.current[change.url] = first
                self.references[change.url] = {"reference": f"{change.type}/{first['id']}"}
            elif not self._may(change) and change.identity:
                identifier = {"system": change.identity.system, "value": change.identity.value}
                self.references[change.url] = {"type": change.type, "identifier": identifier}

    def _may(self, change: Change) -> str:
        told = self.partner.may(self.context.message, self.context.event, change.type)
        return "create" if told and change.create_only else told

    def add(self, change: Change) -> None:
        """The entry of a change: a create, an update, or none where nothing is to be done."""
        resource: Resource = dict(self._link(change.resource) if self.references else change.resource)
        if change.type == "Provenance":
            resource["target"] = []
        current = self.current.get(change.url)
        may = self._may(change)
        if current is not None:
            self._update(replace(change, resource=resource), current, may)
        elif not may:
            text = f"{self.context.message} messages of this partner may not create a {change.type}; it is left out."
            self.issues.append(tell(text))
        elif change.credit and self.state is not None:
            text = "The charge that a credit undoes is not known here."
            self._add_task("credit-not-applied", text, change.identity, resource)
        else:
            self._create(change, resource, may)

    def _create(self, change: Change, resource: Resource, may: str) -> None:
        for name, value in change.on_create.items():
            resource.setdefault(name, value)
        resource = self._mend(resource)
        if self.state is not None and change.type in ORDERED:
            resource = self._stamp(resource)
        if change.type == "Patient" and self.context.event in UPDATES and self.state is not None:
            self.issues.append(warn("204", "The patient of an update is not known here and is created."))
        missing = [name for name in change.required if name not in resource]
        if missing and self.state is not None:
            text = f"The {change.type} is not known here and the message does not tell its {' and '.join(missing)}."
            self.issues.append(refuse("204", text))
        request = {"method": "POST", "url": change.type}
        if change.identity:
            criteria = write_criteria([change.identity])
            if may == CHANGE and self.state is None:
                request = {"method": "PUT", "url": f"{change.type}?{criteria}"}
            else:
                request["ifNoneExist"] = criteria
        self.entries[change.url] = {"fullUrl": change.url, "resource": resource, "request": request}

    def _update(self, change: Change, current: Resource, may: str) -> None:
        if change.credit and current.get("status") in BILLED:
            text = "A charge that is billed already is undone."
            self._add_task("credit-of-billed-charge", text, change.identity, current)
            return
        if may == CHANGE and self._is_newer(current):
            return
        if may != CHANGE and (change.create_only or change.type not in TOLD):
            return
        updated = self._apply(current, change)
        if may == CHANGE and change.type in ORDERED and (updated is not current or change.type in ALWAYS_STAMPED):
            updated = self._stamp(updated)
        if updated is current:
            return
        if change.type == "ChargeItem" and current.get("status") in BILLED:
            text = f"The charge {current['id']} is billed already; the message does not change it."
            self.issues.append(warn("0", text))
            return
        if may != CHANGE:
            text = f"{self.context.message} messages of this partner do not change a known {change.type}; it stays."
            self.issues.append(tell(text))
            return
        self._put(updated, change.url)
        if change.type == "Appointment" and self.state:
            self._free_slots(updated)

    def _apply(self, current: Resource, change: Change) -> Resource:
        """The resource after the change, as R4 takes it; the same object where nothing differs."""
        updated = apply_change(current, change)
        mended = updated if updated is current else self._mend(updated)
        return current if mended is not updated and is_same(mended, current) else mended

    def _mend(self, resource: Resource) -> Resource:
        mended, told = mend_resource(resource)
        self.issues += told
        return mended

    def _is_newer(self, current: Resource) -> bool:
        """Whether a message of this partner that was recorded later has been applied to the resource."""
        recorded, applied = self.mapping.recorded, read_stamp(current, self.partner.name)
        if recorded is None or applied is None or recorded >= applied:
            return False
        text = (
            f"The message was recorded before one that is applied already to {current['resourceType']}/{current['id']} "
            f"({applied.isoformat()}), which it does not change."
        )
        self.issues.append(warn("0", text))
        return True

    def _stamp(self, resource: Resource) -> Resource:
        """The resource with when the message was recorded; as it is where that is there already, or not told."""
        recorded = self.mapping.recorded
        if recorded is None or read_stamp(resource, self.partner.name) == recorded:
            return resource
        others = [each for each in resource.get("extension", []) if each.get("url") != RECORDED]
        return {**resource, "extension": [*others, write_stamp(self.partner.name, recorded)]}

    def _put(self, resource: Resource, key: str = "") -> None:
        reference = f"{resource['resourceType']}/{resource['id']}"
        request = {"method": "PUT", "url": reference}
        if version := resource.get("meta", {}).get("versionId"):
            request["ifMatch"] = f'W/"{version}"'
        key = key or reference
        if key != reference:  # what the message says of it takes the place of what followed for it from others
            self.entries.pop(reference, None)
        self.updated[reference] = key
        self.entries[key] = {"fullUrl": key, "resource": resource, "request": request}

    def _free_slots(self, appointment: Resource) -> None:
        """Slots that the appointment had and has no more are free again."""
        kept = {each.get("reference") for each in appointment.get("slot", [])}
        for slot in self.state.slots.get(f"Appointment/{appointment['id']}", ()) if self.state else ():
            reference = f"Slot/{slot['id']}"
            if reference not in {*kept, *self.updated} and slot.get("status") != "free":
                self._put({**slot, "status": "free"})

    def _add_task(self, code: str, text: str, identity: Identity | None, resource: Resource, owner: str = "") -> None:
        """A Task about a resource; `owner` is the reference of whom it is for."""
        change = make_task(code, text, (*(identity or ("", "")), self.mapping.changes.seed), self.partner)
        if "id" in resource:
            change.resource["focus"] = {"reference": f"{resource['resourceType']}/{resource['id']}"}
        if owner:
            change.resource["for"] = {"reference": owner}
        elif "subject" in resource:
            change.resource["for"] = resource["subject"]
        self.issues.append(warn("204", text))
        self._create(change, change.resource, "create")

    def merge(self, index: int, merge: Merge) -> None:
        """Moves the identifiers of a prior, ends it, and repoints what refers to it."""
        if self.state is None:
            return
        found = self.state.matches.get(f"prior {index}", ())
        survivor = self.current.get(merge.survivor.url)
        priors = [each for each in found if survivor is None or each["id"] != survivor["id"]]
        if not priors:
            names = ", ".join(f"`{value}`" for _, value in merge.prior)
            text = f"The prior {merge.type} {names} is not known here; its identifiers are added to the survivor."
            self.issues.append(warn("204", text))
        for prior in priors:
            self._merge_one(prior, merge)

    def _merge_one(self, prior: Resource, merge: Merge) -> None:
        entry = self.entries.get(merge.survivor.url)
        known = self.current.get(merge.survivor.url)
        survivor = entry["resource"] if entry else known
        target = self.references.get(merge.survivor.url, merge.survivor.reference)["reference"]
        if survivor is None:
            return
        joined = join_survivor(survivor, prior)
        if entry:
            entry["resource"] = joined
        else:
            self._put(joined, merge.survivor.url)
        source = f"{merge.type}/{prior['id']}"
        self._put(end_prior(prior, target))
        assert self.state is not None
        referrers = self.state.referrers.get(source, ())
        for resource in referrers[:REPOINTED_AT_ONCE]:
            key = f"{resource['resourceType']}/{resource['id']}"
            if key in (source, target):
                continue
            entry = self.entries.get(self.updated.get(key, ""))
            moved: Any = repoint(entry["resource"] if entry else resource, source, target)
            if entry:
                entry["resource"] = moved
            else:
                self._put(moved)
        if len(referrers) > REPOINTED_AT_ONCE:
            text = f"More than {REPOINTED_AT_ONCE} resources refer to {source}; they are moved one after the other."
            self._add_task("repoint-references", text, Identity(source, target), prior, target)

    def _link(self, value: Any) -> Any:
        """The value with literal references to known resources; the same object where there are none."""
        link = self._link
        if type(value) is list:
            items: list[Any] | None = None
            for place, each in enumerate(value):
                if (type(each) is dict or type(each) is list) and (linked := link(each)) is not each:
                    items = items or list(value)
                    items[place] = linked
            return items or value
        changed: Resource = {}
        if "reference" in value and type(reference := value["reference"]) is str and reference in self.references:
            changed = {"reference": None, **self.references[reference]}
        for name, each in value.items():
            if (type(each) is dict or type(each) is list) and (linked := link(each)) is not each:
                changed[name] = linked
        if not changed:
            return value
        return {name: each for name, each in {**value, **changed}.items() if each is not None}

    def finish(self) -> Built:
        """The bundle, its Provenance last with every other entry as target; none where an issue forbids storing."""
        if has_errors(self.issues):
            return Built(None, tuple(self.issues))
        entries, sources, targets = [], [], []
        for entry in self.entries.values():
            if entry["resource"]["resourceType"] == "Provenance":
                sources.append(entry)
                continue
            place = _find_place(entry)
            targets.append({"reference": place or entry["fullUrl"]})
            entries.append({**entry, "fullUrl": f"urn:fhir-server:{place}"} if place else entry)
        for entry in sources if targets else ():
            entries.append({**entry, "resource": {**entry["resource"], "target": targets}})
        bundle: Resource = {"resourceType": "Bundle", "type": "transaction"}
        if entries:
            bundle["entry"] = entries
        return Built(bundle, tuple(self.issues), self._find_patient())

    def _find_patient(self) -> str:
        for change in self.mapping.changes.of_type("Patient"):
            known = self.references.get(change.url, {}).get("reference")
            return str(known or (change.url if change.url in self.entries else ""))
        return ""


def _find_place(entry: Resource) -> str:
    """`Patient/1` of an entry that updates by id, else ""."""
    url = str(entry["request"]["url"])
    return url if "/" in url and "?" not in url else ""


def write_bundle(bundle: Resource, indent: bool = False) -> bytes:
    """The bundle as JSON; decimals keep their digits."""
    return orjson.dumps(bundle, default=_write_decimal, option=orjson.OPT_INDENT_2 if indent else 0)


def _write_decimal(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} is no JSON")
