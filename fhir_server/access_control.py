"""Authentication and policy of a server that needs tokens, from its settings (docs/access.md)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from fhir_server.fhir.definitions import Definitions
from fhir_server.operations import OPERATIONS
from fhir_server.requests.criteria import STRICT
from fhir_server.requests.request import Pairs
from fhir_server.search.compartment import build_compartment_clause, list_member_types
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import parse
from fhir_server.search.query import Clause
from fhir_server.security.access_tokens import accept_access_tokens
from fhir_server.security.audit import Audit
from fhir_server.security.audit_file import open_audit_file
from fhir_server.security.authentication import Authenticate
from fhir_server.security.bearer import BearerAuthentication
from fhir_server.security.fetch import fetch, post
from fhir_server.security.introspection import Credentials, Network, accept_opaque_tokens
from fhir_server.security.policy import Policy
from fhir_server.security.scope_policy import ScopePolicy
from fhir_server.security.smart_configuration import SmartConfiguration
from fhir_server.security.static_tokens import Roles, accept_static_tokens
from fhir_server.settings import Settings, split_list
from fhir_server.store.protocol import Clock, Store


def build_authentication(settings: Settings, roles: Roles, store: Store, clock: Clock) -> Authenticate:
    """Tokens of this store, and those of the issuers that the settings name. Raises ValueError."""
    sources = [accept_static_tokens(store, clock, roles), accept_access_tokens(store, roles)]
    issuers, audience = split_list(settings.issuers), split_list(settings.audience or settings.base_url)
    if issuers:
        # Imported here, because the library costs a start 0.1 s.
        from fhir_server.security.jwt_tokens import accept_issuers

        if not audience:
            raise ValueError("`FHIR_ISSUERS` needs `FHIR_BASE_URL` or `FHIR_AUDIENCE`: whom their tokens are for.")
        sources.append(accept_issuers(issuers, audience, clock, fetch))
        if settings.introspection_client:
            credentials = Credentials(settings.introspection_client, _read_secret(settings.introspection_secret_file))
            network = Network(fetch, post)
            sources.append(accept_opaque_tokens(issuers[0], credentials, audience, clock, network))
    return BearerAuthentication(sources, clock)


def _read_secret(path: str) -> str:
    """The secret in a file. Raises ValueError."""
    try:
        secret = Path(path).read_text(encoding="utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The secret in `{path}` cannot be read: {error}.") from None
    if not secret:
        raise ValueError("`FHIR_INTROSPECTION_CLIENT` needs `FHIR_INTROSPECTION_SECRET_FILE`: the file of its secret.")
    return secret


def build_smart_source(settings: Settings, clock: Clock) -> SmartConfiguration | None:
    """Where apps get their tokens; None for a server that needs none."""
    if settings.authentication == "off":
        return None
    return SmartConfiguration(split_list(settings.issuers), clock, fetch)


def build_scope_policy(definitions: Definitions, make_criteria: Callable[[str], Criteria]) -> Policy:
    """What the scopes of tokens allow."""
    members = frozenset(list_member_types(definitions, "Patient"))

    def parse_restriction(type: str, pairs: Pairs) -> Clause:
        return parse((type,), pairs, make_criteria(""), STRICT).query.scopes[0].where

    def enclose(type: str, id: str) -> Clause | None:
        return build_compartment_clause(definitions, "Patient", id, type) if type in members else None

    needs = {code: operation.needs for code, operation in OPERATIONS.items() if operation.needs is not None}
    return ScopePolicy(needs, parse_restriction, enclose)


def open_audit(settings: Settings, store: Store, clock: Clock) -> AbstractAsyncContextManager[Audit | None]:
    """Where interactions are recorded; None where they are not. Raises OSError."""
    if settings.authentication == "off" or not settings.audit_folder:
        return nullcontext()
    return open_audit_file(settings.audit_folder, store, clock)
