"""The table of all settings: environment variables with prefix `FHIR_`, described in `docs/settings.md`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import date
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PATH = re.compile(r"(?:/[A-Za-z0-9.\-_~]+)*/?")
_BASE_URL = re.compile(r"https?://[^\s/?#\"'<>]+(?:/[A-Za-z0-9.\-_~%]+)*")


class Settings(BaseSettings):
    """Every field is one setting; `docs/settings.md` has the same descriptions."""

    model_config = SettingsConfigDict(env_prefix="FHIR_", frozen=True, extra="ignore")

    store: str = Field(
        "sqlite:///fhir.db", description="Store URI: `sqlite:///PATH`, `mongodb://HOST/DATABASE` or `memory://`."
    )
    base_url: str = Field(
        "",
        description="Public base URL of the server, such as `https://fhir.clinic.example/fhir`; empty: taken from "
        "each request's Host and forwarded headers.",
    )
    path: str = Field("/fhir", description="Path below which the FHIR API is served.")
    forwarded: bool = Field(
        True,
        description="Whether `X-Forwarded-Host`, `-Proto`, `-Port`, `-Prefix` and `Forwarded` decide links' base URL.",
    )
    references: Literal["enforce", "allow"] = Field(
        "enforce", description="Whether a literal local reference needs its target (`enforce`) or not (`allow`)."
    )
    handling: Literal["strict", "lenient"] = Field(
        "strict", description="What happens to unknown search parameters when the client has no `Prefer: handling=`."
    )
    conditional_delete: Literal["single", "multiple"] = Field(
        "single", description="Whether a conditional delete may delete several matches."
    )
    full_text: bool = Field(
        False, description="Whether resources are indexed by their words, for `_text` and `_content`."
    )
    purge: bool = Field(False, description="Whether `$purge` may remove a resource and its history physically.")
    time_zone: str = Field("UTC", description="The practice's time zone, for dates written without an offset.")
    default_count: int = Field(20, ge=1, description="Resources on a page when `_count` is not given.")
    max_count: int = Field(1000, ge=1, description="Most resources on a page; a larger `_count` gets this many.")
    max_included: int = Field(10_000, ge=1, description="Most resources that includes may add to one page.")
    search_seconds: float = Field(
        20.0, gt=0, allow_inf_nan=False, description="Seconds after which a search is stopped."
    )
    search_rows: int = Field(
        1_000_000, ge=1, description="Most rows of the index that a search may look at before it is stopped."
    )
    max_body: int = Field(100 * 1024 * 1024, ge=1024, description="Largest request body in bytes, after decompression.")
    request_timeout: float = Field(60.0, gt=0, le=86400, description="Seconds after which a request is given up.")
    page_lifetime: int = Field(24 * 3600, ge=1, description="Seconds for which a page link stays valid.")
    cors_origins: str = Field("*", description="Origins that browsers may call from, separated by commas; empty: none.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    booking: Literal["enforce", "warn", "off"] = Field(
        "enforce",
        description="What happens to plain writes of Appointments that break the rules of booking: they are refused, "
        "stored with a warning, or stored unchecked.",
    )
    hold_minutes: int = Field(10, ge=1, le=1440, description="Minutes for which `$hold` keeps a time.")
    holidays: str = Field(
        "", description="Days on which nobody is open, such as `2026-12-25,2027-01-01`, separated by commas."
    )
    encounter_moves_appointment: bool = Field(
        True, description="Whether an Encounter that starts or finishes moves the Appointments that it names."
    )
    profiles: str = Field(
        "",
        description="Folder of definitions of your own (JSON files and packages, `.tgz`) that are stored at every "
        "start: SearchParameters, value sets.",
    )
    workers: Literal["on", "off"] = Field(
        "on", description="Whether `serve` also runs the workers; `off` leaves them to `fhir-server work`."
    )
    capability: str = Field(
        "", description="Path of a `capability.json` that names the resource types served; empty: all of R4."
    )

    @field_validator("time_zone")
    @classmethod
    def _check_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("Use an IANA name of a time zone, such as `America/New_York`.") from None
        return name

    @field_validator("holidays")
    @classmethod
    def _days(cls, text: str) -> str:
        days = [day.strip() for day in text.split(",") if day.strip()]
        try:
            return ",".join(date.fromisoformat(day).isoformat() for day in days)
        except ValueError:
            raise ValueError("Write days as `2026-12-25`, separated by commas.") from None

    @field_validator("path")
    @classmethod
    def _normalize_path(cls, path: str) -> str:
        rooted = "/" + path.strip("/")
        if not _PATH.fullmatch(rooted):
            raise ValueError("Write a path of letters, digits and `-._~`, such as `/fhir`.")
        return rooted

    @field_validator("base_url")
    @classmethod
    def _normalize_url(cls, url: str) -> str:
        bare = url.rstrip("/")
        if bare and not _BASE_URL.fullmatch(bare):
            raise ValueError("Write the whole URL without query, such as `https://fhir.clinic.example/fhir`.")
        return bare


class WrongSetting(ValueError):
    """Settings have impossible values; str has a sentence for each."""


def read_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with `overrides`. Raises WrongSetting."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise WrongSetting(" ".join(map(_explain_fault, error.errors()))) from None


def find_misspelt(names: Iterable[str]) -> list[str]:
    """A sentence for each environment variable that begins like a setting but is none; it may be another program's."""
    known = [f"FHIR_{name.upper()}" for name in Settings.model_fields]
    sentences = []
    for name in sorted(names):
        if name.upper().startswith("FHIR_") and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            sentences.append(f"`{name}` is no setting of this server and has no effect.{meant}")
    return sentences


def _explain_fault(fault: Any) -> str:
    name = "_".join(map(str, fault["loc"])).upper()
    return f"`FHIR_{name}` cannot be `{fault['input']}`. {fault['msg'].removeprefix('Value error, ').rstrip('.')}."
