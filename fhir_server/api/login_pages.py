"""The pages that people see when an app asks for access: log in, choose a patient, allow or refuse. No scripts.

Their text is in the folder `templates` (Jinja2). Whatever is put in is escaped; the style is the one thing that is not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fhir_server.security.scopes import ResourceScope

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"

_WORDS = {"c": "create", "r": "read", "u": "change", "d": "delete", "s": "search"}
OTHER_SCOPES = {
    "openid": "know who you are",
    "offline_access": "keep access for 90 days, also while you are away",
    "online_access": "keep access for 12 hours",
    "launch": "know which patient is open here",
}
"""Scopes that speak of no resources, in words."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be chosen beside yes and no: rows of an id and a text; None where there is nothing to choose.

    `patient`: the id of the one that is chosen already, "" for none; `person`: their name, once the page is about them.
    `name`: what patients were searched by; None before the first search. `is_cut`: whether there are more than these.
    """

    patients: Sequence[tuple[str, str]] | None = None
    encounters: Sequence[tuple[str, str]] | None = None
    patient: str = ""
    person: str = ""
    name: str | None = None
    is_cut: bool = False
    fault: str = ""


@lru_cache(maxsize=1)
def _load_templates() -> Environment:
    # Imported here, because only a login needs it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(_TEMPLATES)
    return Environment(
        loader=loader,
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=1)
def _read_style() -> str:
    return (_TEMPLATES / "style.css").read_text(encoding="utf-8")


def _write_page(template: str, **values: object) -> str:
    from markupsafe import Markup

    return _load_templates().get_template(template).render(style=Markup(_read_style()), **values)


def make_policy(redirect: str = "") -> str:
    """The Content-Security-Policy of these pages, whose form leads to this server and from there to the app.

    A page without a form has no redirect.
    """
    parts = urlsplit(redirect)
    style = base64.b64encode(hashlib.sha256(_read_style().encode()).digest()).decode()
    # a policy cannot name an IPv6 address
    app = "http:" if ":" in (parts.hostname or "") else f"{parts.scheme}://{parts.netloc}"
    return f"default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-{style}'; " + (
        f"form-action 'self' {app}" if redirect else "form-action 'none'"
    )


def write_login_page(app: str, state: str, fault: str = "", name: str = "") -> str:
    """The form for name and password. `state`: what comes back with it; `name`: what was written there before."""
    return _write_page("log_in.html", app=app, state=state, fault=fault, name=name)


def write_consent_page(app: str, state: str, scopes: Iterable[str], choice: Choice) -> str:
    """The form that allows or refuses."""
    return _write_page("allow_access.html", app=app, state=state, scopes=scopes, choice=choice)


def write_error_page(sentence: str) -> str:
    """Why a login cannot go on."""
    return _write_page("refused.html", fault=sentence.replace("`", ""))


def describe_scope(scope: ResourceScope) -> str:
    """A scope in words, such as `read, search: Observation (of one patient), only category=laboratory`."""
    what = "everything" if scope.type == "*" else scope.type
    whose = " (of one patient)" if scope.level == "patient" else ""
    only = ", only " + " and ".join(f"{name}={value}" for name, value in scope.query) if scope.query else ""
    return f"{', '.join(_WORDS[letter] for letter in scope.permissions)}: {what}{whose}{only}"
