"""`$hl7v2`: messages by HTTP (https://hapifhir.github.io/hapi-hl7v2/hapi-hl7overhttp/specification.html)."""

from __future__ import annotations

from fhir_server.fhir.outcome import Invalid, TooCostly
from fhir_server.requests.context import Context
from fhir_server.requests.request import Request, Response
from fhir_server.workers.hl7v2_intake import ER7, split_messages, take_message

MOST_MESSAGES = 1000
"""Messages of one request."""


async def hl7v2(context: Context, request: Request) -> Response:
    """200 with the acknowledgement of each message, 204 where none asks for one; what is refused is told in them.

    The messages are stored one by one, in their order. Raises Invalid for an unknown partner.
    """
    partner = dict(request.query).get("partner", "")
    unknown = sorted({name for name, _ in request.query} - {"partner", "_format", "_pretty"})
    if unknown:
        raise Invalid(f"`$hl7v2` has no parameter `{unknown[0]}`; it takes `partner`.", code="not-supported")
    if partner and partner not in context.partners:
        raise Invalid(f"There is no partner `{partner}`; leave `partner` out to go by MSH-3 and MSH-4.", code="value")
    messages = await context.long_work.run(len(request.body), split_messages, request.body)
    if len(messages) > MOST_MESSAGES:
        raise TooCostly(f"The file has {len(messages)} messages; {MOST_MESSAGES} are possible. Send it in parts.")
    answers = [(await take_message(context, request.base, each, partner)).acknowledgement for each in messages]
    body = b"".join(answers)
    return Response(200 if body else 204, body, content_type=ER7 if body else None)
