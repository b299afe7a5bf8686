"""The transports of this server, by the names that partners' files give them (docs/adding/a-transport.md)."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_server.transports.folder import Folder
from fhir_server.transports.http import Http
from fhir_server.transports.mllp_client import Mllp
from fhir_server.transports.protocol import Transport

TRANSPORTS: Mapping[str, Transport] = {"folder": Folder(), "mllp": Mllp(), "http": Http()}
"""Name → transport."""
