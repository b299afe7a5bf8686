"""The parameters of an operation, from the query or a Parameters body (https://hl7.org/fhir/R4/operations.html#request)."""

from __future__ import annotations

from fhir_server.fhir.outcome import Invalid
from fhir_server.fhir.resource import parse
from fhir_server.requests.context import Context
from fhir_server.requests.request import Pairs, Request
from fhir_server.search.parse import NOT_SEARCHED


def parse_parameters(context: Context, request: Request) -> Pairs:
    """Names and values as text, in order, without those of every request; parameters of a body follow the query's."""
    pairs = tuple(pair for pair in request.query if pair[0] not in NOT_SEARCHED)
    if request.method != "POST" or not request.body:
        return pairs
    tree = parse(request.body).tree
    if tree.get("resourceType") != "Parameters":
        raise Invalid("The body of an operation has to be a Parameters resource.", code="structure")
    issues = context.validator.find_issues(tree)
    if issues:
        raise Invalid(issues=issues)
    return (*pairs, *(_part_to_pair(part) for part in tree.get("parameter", ())))


def refuse_parameters(request: Request) -> None:
    """Refuse parameters in the URL of an operation that has none there."""
    for name, _ in request.query:
        if name not in NOT_SEARCHED:
            raise Invalid(f"`{request.path[-1]}` has no parameter `{name}` in its URL.", code="not-supported")


def _part_to_pair(part: dict[str, object]) -> tuple[str, str]:
    value = next((value for name, value in part.items() if name.startswith("value")), None)
    if value is None or isinstance(value, dict | list):
        raise Invalid(
            f"The parameter `{part['name']}` needs one simple value, such as a `valueString`.",
            code="value",
            expression=("Parameters.parameter",),
        )
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return str(part["name"]), text


def parse_positive_integer(name: str, text: str) -> int:
    """A number of at least 1. Raises Invalid."""
    if text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0:
        return int(text)
    raise Invalid(f"`{name}` must be a whole number of at least 1, not `{text}`.", code="value")
