"""HL7 v2 over HTTP as a transport: a message is the body of a POST, its acknowledgement that of the response.

https://hapifhir.github.io/hapi-hl7v2/hapi-hl7overhttp/specification.html
"""

from __future__ import annotations

import asyncio

import httpx

from fhir_server.transports.acknowledged import describe_mismatch
from fhir_server.transports.client_tls import make_client_tls
from fhir_server.transports.http_headers import WrongHeaders, hide_secrets, read_headers
from fhir_server.transports.protocol import DeliveryResult, Endpoint

ER7 = "x-application/hl7-v2+er7; charset=utf-8"

LARGEST_ANSWER = 1024 * 1024
"""Bytes of a response that are read."""

REFUSING = frozenset({400, 413, 415, 422})
"""Statuses that speak of the message itself; all others may be of the moment or of the way to it."""

_SHOWN = 200


class Http:
    """`protocol.Transport` to an address that takes messages.

    `url`, `seconds` to wait for an answer, files of TLS, and
    `token_file` and `headers_file`, whose content is in no reason.
    """

    repeats = True

    async def deliver(self, endpoint: Endpoint, control_number: str, payload: bytes) -> DeliveryResult:
        """Post the payload; an answer counts when its MSA-2 is the control number, whatever its status."""
        try:
            headers = await asyncio.to_thread(read_headers, endpoint)
        except WrongHeaders as error:
            return DeliveryResult("unsent", reason=str(error))
        result = await self._send(endpoint, control_number, payload, headers)
        return result._replace(reason=hide_secrets(result.reason, headers.values()))

    async def _send(
        self, endpoint: Endpoint, control_number: str, payload: bytes, headers: dict[str, str]
    ) -> DeliveryResult:
        url, seconds = endpoint["url"], float(endpoint.get("seconds", "30"))
        try:
            verify = make_client_tls(endpoint) if url.startswith("https:") else False
            async with (
                asyncio.timeout(seconds),
                httpx.AsyncClient(verify=verify, timeout=seconds, trust_env=False) as to,
            ):
                status, answer = await _post(to, url, payload, headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return DeliveryResult("unsent", reason=f"`{url}` cannot be reached: {_explain(error)}.")
        except TimeoutError:
            return DeliveryResult("unanswered", reason=f"`{url}` gave no acknowledgement within {seconds:g} seconds.")
        except (httpx.HTTPError, OSError) as error:
            return DeliveryResult("unanswered", reason=f"`{url}` gave no acknowledgement: {_explain(error)}.")
        mismatch = describe_mismatch(answer, control_number)
        if not mismatch:
            return DeliveryResult("delivered", answer)
        said = f"`{url}` answered {status}: {answer[:_SHOWN].decode('utf-8', 'replace').strip() or 'nothing'}."
        if status in REFUSING:
            return DeliveryResult("refused", answer[:_SHOWN], said)
        return DeliveryResult("unanswered", reason=f"{said} {mismatch}")

    async def find_delivered(self, endpoint: Endpoint, control_number: str) -> bool:
        """Not known: a receiver tells nothing of what came before."""
        return False


async def _post(client: httpx.AsyncClient, url: str, payload: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body; of a longer body the beginning."""
    sent = {**headers, "Content-Type": ER7, "Accept": ER7}
    async with client.stream("POST", url, content=payload, headers=sent) as response:
        answer = b""
        async for piece in response.aiter_bytes():
            answer += piece
            if len(answer) > LARGEST_ANSWER:
                break
        return response.status_code, answer


def _explain(error: Exception) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
