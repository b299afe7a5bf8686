"""What a payer asks for beyond the standard: member ids, filing days, authorizations, rules on or off."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Severity = Literal["error", "warning", "information"]
Prefix = Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{1,5}$")]

_REPEATED_GROUP = re.compile(r"\)[*+{]")


class PayerSettings(BaseModel):
    """The settings of one payer, by its payer id (2010BB NM109); procedure codes are named by their beginning."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    payer_id: str = ""
    member_id_pattern: Annotated[str, Field(max_length=200)] = ""
    filing_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    prior_authorization: tuple[Prefix, ...] = ()
    referral: tuple[Prefix, ...] = ()
    ordering: tuple[Prefix, ...] = ()
    one_rendering: bool = False
    rules: dict[str, Severity | Literal["off"]] = Field(default_factory=dict)

    @field_validator("member_id_pattern")
    @classmethod
    def check_pattern(cls, pattern: str) -> str:
        """A regular expression without repeated groups, so that matching takes bounded time."""
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"the member id pattern is no regular expression ({error})") from None
        if _REPEATED_GROUP.search(pattern):
            raise ValueError("the member id pattern repeats a group; write it without")
        return pattern


class SiteSettings(BaseModel):
    """What a site sets for scrubbing: codes that are not otherwise classified, and its payers by payer id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unlisted: tuple[str, ...] = ("J3490", "J3590", "J7999", "J9999", "A9999", "E1399", "T1999", "99199", "99499")
    payers: dict[str, PayerSettings] = Field(default_factory=dict)


NO_SETTINGS = PayerSettings()
