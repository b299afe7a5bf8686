"""`X-Provenance`: where a write came from, written with it (https://hl7.org/fhir/R4/provenance.html#header)."""

from __future__ import annotations

from uuid import uuid4

from fhir_server.fhir.outcome import FhirError, Invalid
from fhir_server.fhir.resource import Text, parse
from fhir_server.requests.authorisation import audit
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request
from fhir_server.store.operations import Transaction
from fhir_server.writes.action import Action, WriteResult
from fhir_server.writes.commit import commit, commit_bundle

HEADER = "x-provenance"
LONGEST = 8 * 1024
"""Characters of the header."""


async def commit_with_provenance(context: Context, request: Request, action: Action) -> WriteResult:
    """Carry out one write; with the header, the Provenance is written in the same transaction."""
    header = request.headers.get(HEADER)
    if header is None:
        return await commit(context, action, request.caller)
    context.policy.authorise(request.principal, "create", "Provenance", None)
    if action.method == "DELETE":
        if action.id is None:
            raise Invalid(
                "`X-Provenance` tells of one resource; send it with a delete by id, not with a conditional one."
            )
        text = _read_provenance(header, f"{action.type}/{action.id}")
    else:
        # by which the Provenance refers to what may have no id yet
        written = f"urn:uuid:{uuid4()}"
        action, text = action._replace(full_url=written), _read_provenance(header, written)
    told = Action("POST", "Provenance", context.new_id(), text=text, where="X-Provenance")
    outcome = await commit_bundle(context, (action, told), request.caller, Transaction())
    audit(context, request._replace(method="POST", path=("Provenance",), query=()), "create", 201)
    return outcome.results[0]


def refuse_provenance(request: Request) -> None:
    """Raise Invalid for the header on a Bundle, whose entries can hold a Provenance themselves."""
    if HEADER in request.headers:
        raise Invalid("`X-Provenance` goes with the write of one resource; a Bundle has the Provenance as an entry.")


def _read_provenance(header: str, target: str) -> Text:
    """The Provenance of the header, about what is written. Raises Invalid."""
    if len(header) > LONGEST:
        raise Invalid(f"`X-Provenance` has {len(header):,} characters; {LONGEST:,} is the most. Store it by itself.")
    raw = header.strip().encode("latin-1", "replace")
    try:
        tree = parse(raw).tree
    except FhirError as error:
        raise Invalid(f"`X-Provenance` is no resource: {error.issues[0].diagnostics}") from None
    if not isinstance(tree, dict) or tree.get("resourceType") != "Provenance":
        raise Invalid("`X-Provenance` must be a Provenance as JSON, in one line.")
    if "target" in tree:
        raise Invalid("Leave `target` out of the Provenance in `X-Provenance`: it is about what this request writes.")
    return parse(b'{"target":[{"reference":"%s"}],' % target.encode() + raw[1:])
