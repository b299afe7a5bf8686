"""What a site says of whom a message is sent to, and what the conversions of one message share."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from mappers.hl7v2.changes import Resource
from mappers.hl7v2.issues import Issue, tell
from mappers.hl7v2.partner import Partner


@dataclass(frozen=True, slots=True)
class Receiver:
    """A partner as one to send to.

    `partner` gives zone, authorities, code systems and translations, each read from right to left. `sending` and
    `receiving` are application and facility, MSH-3 to MSH-6; a component is set off by `^`.
    """

    partner: Partner
    sending: tuple[str, str] = ("", "")
    receiving: tuple[str, str] = ("", "")
    version: str = "2.5.1"
    processing: str = "P"


class Envelope(NamedTuple):
    """What tells one message from others: MSH-10, and the aware instant at which it is written.

    `earlier`: the status of the resource that the receiver was told before, "" where it was not told of it. `answer`:
    ORC-1 of a prescription by which a request for a refill is answered.
    """

    control: str
    clock: datetime
    earlier: str = ""
    answer: str = ""


class Index:
    """The resources that a message may speak of, by their references."""

    __slots__ = ("_by_reference", "resources")

    def __init__(self, resources: Iterable[Resource]) -> None:
        """Takes resources, or entries of a Bundle, which are known by their `fullUrl` too."""
        self._by_reference: dict[str, Resource] = {}
        self.resources: list[Resource] = []
        for each in resources:
            resource = each.get("resource", each)
            self.resources.append(resource)
            if "fullUrl" in each:
                self._by_reference[each["fullUrl"]] = resource
            if "id" in resource:
                self._by_reference[f"{resource['resourceType']}/{resource['id']}"] = resource

    def find(self, reference: Any) -> Resource | None:
        """The resource that a Reference leads to; a version of it is not looked at."""
        text = str((reference or {}).get("reference", "")).partition("/_history/")[0]
        return self._by_reference.get(text) or self._by_reference.get("/".join(text.rsplit("/", 2)[-2:]))

    def leads_to(self, reference: Any, resource: Resource) -> bool:
        """Whether a Reference leads to a resource."""
        return self.find(reference) is resource

    def of_type(self, resource_type: str) -> list[Resource]:
        """The resources of a type."""
        return [each for each in self.resources if each["resourceType"] == resource_type]


@dataclass(frozen=True, slots=True)
class Writing:
    """Given to every conversion of one message that is written; issues are added as it grows."""

    receiver: Receiver
    index: Index
    message: str
    event: str
    zone: tzinfo
    envelope: Envelope
    issues: list[Issue] = field(default_factory=list)
    copies: list[tuple[Resource, Resource]] = field(default_factory=list)
    """Each copy of a resource that the message speaks of, with the resource as it was given."""

    def open(self, resource: Resource) -> Resource:
        """A copy of a resource, out of which is taken whatever the message says; what stays in it is told."""
        copy = deepcopy(resource)
        self.copies.append((copy, resource))
        return copy

    def follow(self, reference: Any, *types: str) -> Resource | None:
        """A copy of the resource that a Reference leads to, of one of these types."""
        resource = self.index.find(reference)
        if resource is None or resource["resourceType"] not in types:
            return None
        return self.open(resource)

    def names(self, reference: Any, copy: Resource | None) -> bool:
        """Whether a Reference leads to the resource of which this is a copy."""
        known = self.index.find(reference)
        return known is not None and any(each is copy and given is known for each, given in self.copies)

    def tell(self, text: str) -> None:
        """Adds what the message cannot say."""
        self.issues.append(tell(text))
