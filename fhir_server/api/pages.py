"""The HTML pages: what this server is, and its documentation, without scripts or resources of other hosts."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from fhir_server.api.endpoints import Endpoint

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: #0b63b0; }
@media (prefers-color-scheme: dark) { :root { --link: #7db9f0; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1.5rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
h1 { font-size: 1.7rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
nav { border-bottom: 1px solid var(--line); padding-bottom: .6rem; } nav a { margin-right: 1.2rem; }
code { font: .9em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; }
td, th { border-bottom: 1px solid var(--line); padding: .35rem .6rem .35rem 0; vertical-align: top; }
pre, .query { background: var(--soft); border-radius: .4rem; padding: .7rem 1rem; overflow-x: auto; }
ul.types { columns: 17rem; list-style: none; padding: 0; }
.GET, .POST, .PUT, .PATCH, .DELETE { font-weight: 600; } td:nth-child(2), .code { white-space: nowrap; }
.GET { color: #1c7c3c; } .POST { color: #b06000; } .PUT, .PATCH { color: #7048b6; } .DELETE { color: #c0392b; }
@media (prefers-color-scheme: dark) {
  .GET { color: #6fcf8a; } .POST { color: #f0ad5b; } .PUT, .PATCH { color: #b99af0; } .DELETE { color: #f08a80; }
}
@media (max-width: 45rem) {
  th { display: none; } tr, td { display: block; } tr { border-bottom: 1px solid var(--line); padding: .4rem 0; }
  td, td:nth-child(2) { border: 0; padding: 0; white-space: normal; }
}
"""

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)
"""The Content-Security-Policy of these pages: only their own style."""

_READABLE = "_format=application/json&_pretty=true"
"""Parameters that make a browser show an answer instead of saving it."""


def write_home_page(version: str, fhir: str) -> str:
    """`/`. `fhir`: the FHIR API's path, relative to the root, such as `fhir/`."""
    query = f"{fhir}Patient?_count=5&_sort=-_lastUpdated"
    links = (
        ("docs", "Documentation", "Resource types with their interactions, search parameters and operations"),
        ("openapi.json", "OpenAPI", "The same for programs, with a schema of every type; large"),
        (f"{fhir}metadata?{_READABLE}", "CapabilityStatement", "The same in FHIR's own words"),
        ("livez", "Liveness", "Whether the process runs"),
        ("readyz", "Readiness", "Whether its store can answer"),
    )
    rows = (f'<tr><td><a href="{escape(url)}">{name}</a></td><td>{text}</td></tr>' for url, name, text in links)
    return _write_page(
        "FHIR server",
        "",
        f"<p>This server, version {escape(version)}, stores and finds clinical resources: FHIR R4 (4.0.1) as JSON "
        f"over HTTP, below <code>/{escape(fhir)}</code>.</p><h2>A first query</h2>"
        "<p>The five patients that changed last:</p>"
        f'<p class="query"><a href="{escape(f"{query}&{_READABLE}")}"><code>GET /{escape(query)}</code></a></p>'
        f"<h2>What there is</h2><table>{''.join(rows)}</table>",
    )


def write_index_page(rest: Mapping[str, Any], endpoints: Iterable[Endpoint], fhir: str) -> str:
    """`/docs`: the types and the system level. `rest`: that of the CapabilityStatement."""
    types = [each["type"] for each in rest["resource"]]
    links = "".join(f'<li><a href="docs/{type}">{type}</a></li>' for type in types)
    notes = "".join(f"<p>{_write_prose(line)}</p>" for line in rest["documentation"].splitlines() if line)
    return _write_page(
        "Documentation",
        "",
        f"<p>Paths are below <code>/{escape(fhir)}</code>. Each resource type has a page of its own.</p>"
        f'<h2>{len(types)} resource types</h2><ul class="types">{links}</ul>'
        f"<h2>The system as a whole</h2>{_write_endpoint_table(endpoints, fhir)}"
        f"<h2>Search parameters of every type</h2>{_write_parameter_table(rest['searchParam'])}"
        f"<h2>What holds for every type</h2>{notes}",
    )


def write_type_page(resource: Mapping[str, Any], endpoints: Iterable[Endpoint], fhir: str) -> str:
    """`/docs/[type]`. `resource`: the type's part of the CapabilityStatement."""
    type = resource["type"]
    values = (("_include", resource.get("searchInclude")), ("_revinclude", resource.get("searchRevInclude")))
    includes = "".join(
        f"<h2>Values of {name}</h2><p>{' · '.join(f'<code>{escape(each)}</code>' for each in texts)}</p>"
        for name, texts in values
        if texts
    )
    rows: dict[bool, list[Endpoint]] = {False: [], True: []}
    for each in endpoints:
        rows["search-compartment" in each.codes].append(each)
    within = (
        f"<h2>Searches in its compartment</h2>{_write_endpoint_table(rows[True], f'../{fhir}')}" if rows[True] else ""
    )
    return _write_page(
        type,
        "../",
        f'<p><a href="http://hl7.org/fhir/R4/{type.lower()}.html" rel="noreferrer">{type} in the specification</a></p>'
        f"<h2>Interactions and operations</h2>{_write_endpoint_table(rows[False], f'../{fhir}')}"
        f"<h2>Search parameters</h2>{_write_parameter_table(resource['searchParam'])}{includes}{within}",
    )


def write_missing_page(type: str) -> str:
    """The page for a type that is not served."""
    return _write_page(
        "Not found", "../", f"<p><code>{escape(type)}</code> is no resource type that is served here.</p>"
    )


def _write_page(title: str, up: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<nav><a href="{up or "./"}">Home</a><a href="{up}docs">Documentation</a>'
        f'<a href="{up}openapi.json">OpenAPI</a></nav><h1>{escape(title)}</h1>{body}</body></html>'
    )


def _write_endpoint_table(endpoints: Iterable[Endpoint], fhir: str) -> str:
    """A row for each method and URL; a GET without an id is a link."""
    rows = []
    for each in endpoints:
        path = f"<code>{escape(each.path)}{'?[criteria]' if each.conditional else ''}</code>"
        if each.method == "GET" and "{" not in each.path and not each.definition:
            path = f'<a href="{escape(f"{fhir}{each.path[1:]}?{_READABLE}")}">{path}</a>'
        definition = f"<br><code>{escape(each.definition)}</code>" if each.definition else ""
        rows.append(
            f'<tr><td class="{each.method}">{each.method}</td><td>{path}</td>'
            f'<td class="code">{escape(", ".join(each.codes))}</td>'
            f"<td>{escape(each.summary)}{definition}</td></tr>"
        )
    return f"<table><tr><th>Method</th><th>Path</th><th>Code</th><th>What it does</th></tr>{''.join(rows)}</table>"


def _write_parameter_table(parameters: Iterable[Mapping[str, str]]) -> str:
    """A row for each search parameter of a CapabilityStatement."""
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code></td><td>{escape(each['type'])}</td>"
        f"<td><code>{escape(each['definition'])}</code><br>{_write_prose(each.get('documentation', ''))}</td></tr>"
        for each in parameters
    )
    return f"<table><tr><th>Name</th><th>Type</th><th>Definition</th></tr>{rows}</table>"


def _write_prose(text: str) -> str:
    """Text with code in backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
