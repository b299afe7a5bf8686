"""A Claim that comes in the request and is not stored: for `$scrub` and `$cms1500`."""

from __future__ import annotations

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.resource import parse
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request
from fhir_server.workers.posting.writes import copy
from mappers.billing.fields import Resource


async def read_body(context: Context, request: Request) -> Resource:
    """The Claim of the request: the body, or the parameter `resource` of Parameters. Raises Invalid."""
    return await context.long_work.run(len(request.body), _read, context, request)


def _read(context: Context, request: Request) -> Resource:
    tree = parse(request.body).tree if request.body else {}
    if tree.get("resourceType") == "Parameters":
        parts = [each for each in tree.get("parameter", ()) if isinstance(each, dict)]
        tree = parts[0].get("resource", {}) if len(parts) == 1 and parts[0].get("name") == "resource" else {}
    if tree.get("resourceType") != "Claim":
        operation = request.path[-1]
        where = f"as its body or in the parameter `resource`; `Claim/id/{operation}` takes none."
        raise Invalid(f"`Claim/{operation}` needs a Claim {where}", code="required", expression=("resource",))
    issues = context.validator.find_issues(tree)
    if issues:
        raise Invalid(issues=issues)
    return copy(tree)
