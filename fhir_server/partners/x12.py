"""The table `x12` of a partner's file: both sides of the envelope, separators, acknowledgements (docs/partners.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fhir_server.partners.section import Section, Text

_ID = r"^[A-Z0-9!\"&'()+,\-./;?= ]*[A-Z0-9!\"&'()+,\-./;?=]$"
_SEPARATOR = r"^[!-,/:-@\[-`{-~\n\x1c-\x1f]$"

Qualifier = Literal["01", "14", "20", "27", "28", "29", "30", "33", "ZZ"]
"""ISA05 and ISA07 in 005010."""


class X12Side(Section):
    """One side: ISA qualifier and id, GS id (that of ISA where left out), name and id in loop 1000 (NM103, NM109)."""

    qualifier: Qualifier = "ZZ"
    id: Annotated[str, Field(max_length=15, pattern=_ID)]
    group_id: Annotated[str, Field(min_length=2, max_length=15, pattern=_ID)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=60)]
    electronic_id: Annotated[str, Field(min_length=2, max_length=80)] | None = None


class X12OwnSide(X12Side):
    """Our side: also whom the partner calls (PER of loop 1000A); `person`: the submitter is a person."""

    contact: Annotated[str, Field(min_length=1, max_length=60)]
    phone: str = ""
    email: str = ""
    person: bool = False

    @model_validator(mode="after")
    def _reachable(self) -> X12OwnSide:
        if not self.phone and not self.email:
            raise ValueError("Give `phone`, `email` or both: the partner has to reach the contact.")
        if self.phone and not 10 <= sum(map(str.isdigit, self.phone)) <= 20:
            raise ValueError("`phone` needs 10 to 20 digits.")
        return self


class X12Separators(Section):
    """The four separators of what we write, and what follows each segment."""

    element: Annotated[str, Field(pattern=_SEPARATOR)] = "*"
    component: Annotated[str, Field(pattern=_SEPARATOR)] = ":"
    repetition: Annotated[str, Field(pattern=_SEPARATOR)] = "^"
    terminator: Annotated[str, Field(pattern=_SEPARATOR)] = "~"
    newline: Literal["", "\n", "\r\n"] = ""

    @model_validator(mode="after")
    def _distinct(self) -> X12Separators:
        if len({self.element, self.component, self.repetition, self.terminator}) < 4:
            raise ValueError("The four separators must differ from each other.")
        return self


class X12Section(Section):
    """How X12 is exchanged with a partner.

    `envelope`: `direct`: the practice submits to the payer; `clearinghouse`: the practice submits to a clearinghouse;
    `billing-company`: that company submits (`ours`). `payers`: the payer ids (NM109 of 2010BB) that the partner takes;
    empty: all. `answers`: which acknowledgements of what comes in by a folder go out. `requests_ta1` is ISA14.
    `answer_days`: days within which a claim is answered by a 999 and then by a 277CA; None: nobody waits for that.
    """

    envelope: Literal["direct", "clearinghouse", "billing-company"]
    ours: X12OwnSide
    theirs: X12Side
    usage: Literal["T", "P"] = "T"
    payers: tuple[Text, ...] = ()
    separators: X12Separators = X12Separators()
    answers: tuple[Literal["TA1", "999"], ...] = ()
    requests_ta1: bool = False
    answer_days: Annotated[int, Field(ge=1, le=365)] | None = None
    filing_codes: Mapping[str, Annotated[str, Field(pattern=r"^[0-9A-Z]{2}$")]] = Field(default_factory=dict)
    assignments: Mapping[str, Literal["A", "B", "C"]] = Field(default_factory=dict)
    described_procedures: tuple[Text, ...] | None = None

    @model_validator(mode="after")
    def _names_payers(self) -> X12Section:
        if self.envelope == "direct" and not self.payers:
            raise ValueError("An envelope that goes to a payer itself needs the payer's id in `payers`.")
        return self
