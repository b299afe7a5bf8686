"""The pages that people see when an app asks for access: log in, choose a patient, allow or refuse. No scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import urlsplit

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --link: #0b63b0; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 30rem; margin: 3rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.4rem; } label { display: block; margin: 1rem 0 .2rem; font-weight: 600; }
input[type=text], input[type=password] { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; }
button { font: inherit; padding: .5rem 1.2rem; margin: 1.2rem .6rem 0 0; }
.fault { border-left: .3rem solid #c0392b; padding: .3rem .8rem; }
fieldset { border: 1px solid var(--line); margin-top: 1rem; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; } .choice { font-weight: 400; margin: .3rem 0; }
"""

_WORDS = {"c": "create", "r": "read", "u": "change", "d": "delete", "s": "search"}


def make_policy(redirect: str) -> str:
    """The Content-Security-Policy of these pages, whose form leads to this server and from there to the app."""
    parts = urlsplit(redirect)
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-{style}'; "
        f"form-action 'self' {parts.scheme}://{parts.netloc}"
    )


def write_login_page(app: str, state: str, fault: str = "") -> str:
    """The form for name and password. `state`: what comes back with it."""
    told = f'<p class="fault" role="alert">{escape(fault)}</p>' if fault else ""
    return _write_page(
        "Log in",
        f"""<h1>Log in</h1>
<p>The app <strong>{escape(app)}</strong> asks for access to health records here.</p>{told}
<form method="post" action="login">
<input type="hidden" name="state" value="{escape(state)}">
<label for="username">Name</label>
<input type="text" id="username" name="username" autocomplete="username" required autofocus>
<label for="password">Password</label>
<input type="password" id="password" name="password" autocomplete="current-password" required>
<button type="submit">Log in</button>
</form>""",
    )


def write_consent_page(
    app: str, state: str, scopes: Iterable[str], patients: Sequence[tuple[str, str]] | None = None, fault: str = ""
) -> str:
    """The form that allows or refuses. `patients`: (id, name) of those to choose from; None: there is no choice."""
    told = f'<p class="fault" role="alert">{escape(fault)}</p>' if fault else ""
    listed = "".join(f"<li><code>{escape(scope)}</code></li>" for scope in scopes)
    picker = "" if patients is None else _write_picker(patients)
    return _write_page(
        "Allow access",
        f"""<h1>Allow access?</h1>
<p>The app <strong>{escape(app)}</strong> may then do this in your name:</p>
<ul>{listed}</ul>{told}
<form method="post" action="consent">
<input type="hidden" name="state" value="{escape(state)}">{picker}
<button type="submit" name="action" value="allow">Allow</button>
<button type="submit" name="action" value="deny">Refuse</button>
</form>""",
    )


def _write_picker(patients: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f'<label class="choice"><input type="radio" name="patient" value="{escape(id)}"> {escape(name)}</label>'
        for id, name in patients
    )
    return f"""
<fieldset><legend>For which patient?</legend>
<label for="name">Name begins with</label>
<input type="text" id="name" name="name">
<button type="submit" name="action" value="find">Find</button>
{rows or "<p>Nobody is found yet.</p>"}
</fieldset>"""


def describe_scope(level: str, type: str, letters: str) -> str:
    """A scope in words, such as `read, search: Observation (of one patient)`."""
    what = "everything" if type == "*" else type
    whose = " (of one patient)" if level == "patient" else ""
    return f"{', '.join(_WORDS[letter] for letter in letters)}: {what}{whose}"


def _write_page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>'
    )
