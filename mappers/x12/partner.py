"""What is agreed with a trading partner, and one claim with all that it refers to: the arguments of the 837P mapper.

The three envelopes of a practice (traps.md B21): *practice direct*: the practice is submitter, the payer is receiver;
*clearinghouse*: the practice is submitter, the clearinghouse is receiver; *billing company*: that company is submitter,
payer or clearinghouse is receiver. The billing provider (2010AA) is the practice in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mappers.x12 import codes
from mappers.x12.fault import Fault, Place
from mappers.x12.resource import Resource, Resources
from mappers.x12.writer import Envelope


@dataclass(frozen=True, slots=True)
class Party:
    """Submitter or receiver (1000A, 1000B): name, electronic id (NM109), and for a submitter whom to call."""

    name: str
    id: str
    contact: str = ""
    phone: str = ""
    email: str = ""
    person: bool = False


@dataclass(frozen=True, slots=True)
class Partner:
    """The envelope and both parties; `filing_codes`, `assignments` by payer id override SBR09 and give CLM07.

    `described`: procedure codes that need a description (SV101-7).
    """

    envelope: Envelope
    submitter: Party
    receiver: Party
    filing_codes: Mapping[str, str] = field(default_factory=dict)
    assignments: Mapping[str, str] = field(default_factory=dict)
    described: frozenset[str] = codes.DESCRIBED


@dataclass(frozen=True, slots=True)
class ClaimSource:
    """A Claim and the resources that it refers to; `frequency` is CLM05-3 (1, 7 replacement, 8 void).

    `payer_claim_number` is the payer's number of the claim to be replaced or voided; else it is taken from the Claim.
    """

    claim: Resource
    resources: Resources
    frequency: str = "1"
    payer_claim_number: str = ""


@dataclass(frozen=True, slots=True)
class Mapping837:
    """A claim that is being mapped; what is missing is told by `tell`."""

    source: ClaimSource
    partner: Partner
    faults: list[Fault] = field(default_factory=list)

    @property
    def claim(self) -> Resource:
        return self.source.claim

    @property
    def resources(self) -> Resources:
        return self.source.resources

    def tell(self, sentence: str, expression: str, path: str, warning: bool = False) -> None:
        """Note a fault: a sentence, its FHIRPath, its X12 path `loop/segment/element`."""
        loop, segment, element, *_ = [*path.split("/"), "", "0"]
        place = Place(loop=loop, segment=segment, element=int(element or 0))
        self.faults.append(Fault(sentence, place, "element", "1", "warning" if warning else "error", expression))
