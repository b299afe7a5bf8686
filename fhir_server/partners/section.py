"""What every table of a partner's file is (docs/partners.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A table of a partner's file: nothing but its keys, and not changed once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
