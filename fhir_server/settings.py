"""The table of all settings: environment variables with prefix `FHIR_`, described in `docs/settings.md`."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterable
from datetime import date
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PATH = re.compile(r"(?:/[A-Za-z0-9.\-_~]+)*/?")
BASE_URL = re.compile(r"https?://[^\s/?#\"'<>]+(?:/[A-Za-z0-9.\-_~%]+)*")
_HOST = re.compile(r"[A-Za-z0-9.\-_]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://[^\s/?#\"'<>,]+")


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a setting that lists several, separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@functools.lru_cache(maxsize=16)
def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of a setting; an address is a network of one. Raises ValueError."""
    return tuple(ip_network(part, strict=False) for part in split_list(text))


class Settings(BaseSettings):
    """Every field is one setting; `docs/settings.md` has the same descriptions."""

    model_config = SettingsConfigDict(env_prefix="FHIR_", frozen=True, extra="ignore")

    store: str = Field(
        "sqlite:///fhir.db", description="Store URI: `sqlite:///PATH`, `mongodb://HOST/DATABASE` or `memory://`."
    )
    base_url: str = Field(
        "",
        description="Public base URL of the server, such as `https://fhir.clinic.example/fhir`; empty: taken from "
        "each request's Host, or a proxy's forwarded headers.",
    )
    path: str = Field("/fhir", description="Path below which the FHIR API is served.")
    hosts: str = Field(
        "", description="Further names by which clients may address the server (header `Host`), separated by commas."
    )
    proxies: str = Field(
        "",
        description="Addresses and networks of the proxies whose forwarded headers count, separated by commas; empty: "
        "none.",
    )
    authentication: Literal["off", "on"] = Field(
        "off", description="Whether every request needs an access token (`on`); `off` lets anybody do everything."
    )
    issuers: str = Field(
        "",
        description="URLs of the authorization servers whose access tokens are accepted, as in their `iss`, separated "
        "by commas.",
    )
    audience: str = Field(
        "",
        description="What access tokens have as their `aud`, separated by commas; empty: the base URL of the server.",
    )
    introspection_client: str = Field(
        "",
        description="Name by which this server asks the first of the issuers about opaque tokens; empty: it does not.",
    )
    introspection_secret_file: str = Field("", description="File that holds the secret of that name.")
    tls_certificate: str = Field(
        "", description="Certificate (PEM, with its chain) by which `serve` speaks https; empty: http."
    )
    tls_key: str = Field("", description="Key (PEM) of the certificate; empty: it is in the same file.")
    request_rate: int = Field(
        0, ge=0, description="Requests a minute that one token's owner may make, in each process; 0: without end."
    )
    break_glass: str = Field(
        "ETREAT,BTG",
        description="Purposes for which people whose role allows it may read what is hidden, separated by commas; "
        "empty: nobody may.",
    )
    audit: Literal["files", "resources"] = Field(
        "files",
        description="Where it is recorded who saw and changed what: in chained files (`files`) or as AuditEvents in "
        "the store (`resources`).",
    )
    audit_folder: str = Field(
        "audit",
        description="Folder of the files that record who saw and changed what, where authentication is on; empty: no "
        "record.",
    )
    references: Literal["enforce", "allow"] = Field(
        "enforce", description="Whether a literal local reference needs its target (`enforce`) or not (`allow`)."
    )
    invariants: Literal["enforce", "off"] = Field(
        "enforce", description="Whether a resource that breaks an error invariant of R4 is refused (`enforce`)."
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
    max_entries: int = Field(
        100_000, ge=1000, le=200_000, description="Most rows of the index that one resource may take."
    )
    max_transaction_entries: int = Field(
        1_000_000, ge=1000, description="Most rows of the index that one transaction may take."
    )
    max_patch_operations: int = Field(1000, ge=1, description="Most operations of one patch.")
    max_search_parameter_branches: int = Field(
        200, ge=1, description="Most branches (`|`) of the expression of a SearchParameter."
    )
    max_body: int = Field(100 * 1024 * 1024, ge=1024, description="Largest request body in bytes, after decompression.")
    max_bodies: int = Field(
        256 * 1024 * 1024, ge=1024, description="Bytes of request bodies that one worker holds at once."
    )
    max_answer: int = Field(
        32 * 1024 * 1024, ge=1024, description="Bytes of resources that one page or the reads of one bundle may answer."
    )
    request_timeout: float = Field(60.0, gt=0, le=86400, description="Seconds after which a request is given up.")
    watchdog_seconds: float = Field(
        30.0, ge=1, description="Seconds without a turn of its event loop after which a worker is replaced."
    )
    page_lifetime: int = Field(24 * 3600, ge=1, description="Seconds for which a page link stays valid.")
    cors_origins: str = Field(
        "", description="Origins of the web pages that may read and write, separated by commas; empty: none."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_ids: bool = Field(False, description="Whether the log shows the ids in paths as they are, and not as hashes.")
    booking: Literal["enforce", "warn", "off"] = Field(
        "enforce",
        description="What happens to plain writes of Appointments that break the rules of booking: they are refused, "
        "stored with a warning, or stored unchecked.",
    )
    prescribing: Literal["enforce", "off"] = Field(
        "off",
        description="Whether plain writes of MedicationRequests are held to the checks and the life cycle of "
        "prescriptions, as the operations are.",
    )
    hold_minutes: int = Field(10, ge=1, le=1440, description="Minutes for which `$hold` keeps a time.")
    offer_minutes: int = Field(
        120,
        ge=0,
        le=10_080,
        description="Minutes for which a time that became free is offered to one who waits; 0: nothing is offered.",
    )
    holidays: str = Field(
        "", description="Days on which nobody is open, such as `2026-12-25,2027-01-01`, separated by commas."
    )
    booking_page: str = Field(
        "",
        description="URL of the site's own booking page, which published Slots link to with schedule, start and end as "
        "parameters; empty: `$open-time` of this server.",
    )
    encounter_moves_appointment: bool = Field(
        True, description="Whether an Encounter that starts or finishes moves the Appointments that it names."
    )
    billing_provider: str = Field(
        "",
        description="Organization or Practitioner that bills the charges that do not name one "
        "(`ChargeItem.performingOrganization`), such as `Organization/clinic`.",
    )
    place_of_service: str = Field(
        "11", description="CMS place of service of charges whose own and whose encounter's place are not told."
    )
    code_sets: str = Field(
        "", description="Folder of the code sets that `fhir-server codes load` compiles; empty: codes are not checked."
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

    @field_validator("billing_provider")
    @classmethod
    def _check_provider(cls, text: str) -> str:
        if text and not re.fullmatch(r"(?:Organization|Practitioner|PractitionerRole)/[A-Za-z0-9.\-]{1,64}", text):
            raise ValueError("Write a reference such as `Organization/clinic`.")
        return text

    @field_validator("place_of_service")
    @classmethod
    def _check_place(cls, text: str) -> str:
        if not re.fullmatch(r"[0-9]{2}", text, re.ASCII):
            raise ValueError("Write a code of two digits of the CMS list, such as `11` for an office.")
        return text

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, text: str) -> str:
        for name in split_list(text):
            if not _HOST.fullmatch(name):
                raise ValueError("Write names without scheme and port, such as `fhir.clinic.example,ehr-gateway`.")
        return text

    @field_validator("proxies")
    @classmethod
    def _check_networks(cls, text: str) -> str:
        try:
            parse_networks(text)
        except ValueError:
            raise ValueError("Write IP addresses and networks, such as `127.0.0.1,10.1.0.0/16`.") from None
        return text

    @field_validator("issuers")
    @classmethod
    def _check_issuers(cls, text: str) -> str:
        for url in split_list(text):
            if not BASE_URL.fullmatch(url.rstrip("/")):
                raise ValueError("Write whole URLs without query, such as `https://login.clinic.example/realms/main`.")
        return text

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, text: str) -> str:
        for origin in split_list(text):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError("Write origins such as `https://app.clinic.example`, without a path, or `*` for all.")
        return text

    @field_validator("booking_page")
    @classmethod
    def _check_page(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^\s\"'<>]+", url):
            raise ValueError("Write the whole URL, such as `https://clinic.example/book`.")
        return url

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
        if bare and not BASE_URL.fullmatch(bare):
            raise ValueError("Write the whole URL without query, such as `https://fhir.clinic.example/fhir`.")
        return bare


class WrongSetting(ValueError):
    """Settings have impossible values; str has a sentence for each."""


def read_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with `overrides`. Raises WrongSetting."""
    try:
        return Settings(**{**_read_store_file(), **overrides})
    except ValidationError as error:
        raise WrongSetting(" ".join(map(_explain_fault, error.errors()))) from None


STORE_FILE = "FHIR_STORE_FILE"
"""Names a file that has the store's URI, which may hold a password; `FHIR_STORE` wins over it."""

COMMAND_VARIABLES = ("FHIR_ALLOW_UNAUTHENTICATED", STORE_FILE)
"""Environment variables that stand for options of commands, or for a setting in a file, and are no settings."""


def _read_store_file() -> dict[str, str]:
    path = os.environ.get(STORE_FILE)
    if not path or "FHIR_STORE" in os.environ:
        return {}
    try:
        return {"store": Path(path).read_text(encoding="utf-8").strip()}
    except (OSError, ValueError) as error:
        raise WrongSetting(f"`{STORE_FILE}` names a file that cannot be read: {error}.") from None


def find_misspelt(names: Iterable[str]) -> list[str]:
    """A sentence for each environment variable that begins like a setting but is none; it may be another program's."""
    known = [*(f"FHIR_{name.upper()}" for name in Settings.model_fields), *COMMAND_VARIABLES]
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
