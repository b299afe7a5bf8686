"""Authentication and policy of a server that needs tokens, from its settings (docs/access.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from fhir_server.fhir.definitions import Definitions
from fhir_server.operations import OPERATIONS
from fhir_server.requests.context import Context
from fhir_server.requests.criteria import STRICT
from fhir_server.requests.request import Pairs
from fhir_server.search.compartment import build_compartment_clause, list_member_types
from fhir_server.search.parameters import Criteria
from fhir_server.search.parse import parse
from fhir_server.search.query import Clause, Equals, Or
from fhir_server.search.registry import Parameter, Registry
from fhir_server.security.access_tokens import accept_access_tokens
from fhir_server.security.audit import Audit
from fhir_server.security.audit_file import open_audit_file
from fhir_server.security.audit_store import TYPE, Indexing, open_audit_store
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


def build_scope_policy(
    settings: Settings, definitions: Definitions, registry: Registry, make_criteria: Callable[[str], Criteria]
) -> Policy:
    """What the scopes of tokens allow; the record of the server, where it is resources, only by its name."""
    members = frozenset(list_member_types(definitions, "Patient"))

    def parse_restriction(type: str, pairs: Pairs) -> Clause:
        return parse((type,), pairs, make_criteria(""), STRICT).query.scopes[0].where

    def enclose(type: str, id: str) -> Clause | None:
        if type not in members:
            return None
        return name_patient(build_compartment_clause(definitions, "Patient", id, type), registry.parameters(type))

    def list_referrers(type: str) -> Iterator[tuple[str, str]]:
        for source in registry.types:
            for parameter in registry.parameters(source).values():
                if parameter.type == "reference" and type in parameter.targets:
                    yield source, parameter.code

    needs = {code: operation.needs for code, operation in OPERATIONS.items() if operation.needs is not None}
    by_name = frozenset({TYPE} if settings.audit == "resources" else ())
    return ScopePolicy(needs, parse_restriction, enclose, list_referrers, registry.types, by_name)


def name_patient(clause: Clause, parameters: Mapping[str, Parameter]) -> Clause:
    """The clause of a Patient compartment with `patient` for a parameter that says the same of patients.

    `patient` is what apps ask by, and a search that names its own patient so needs no other proof (`access.conjoin`).
    """
    if isinstance(clause, Or):
        return Or(tuple(name_patient(each, parameters) for each in clause.clauses))
    patient = parameters.get("patient")
    if patient is None or not isinstance(clause, Equals) or clause.parameter not in parameters:
        return clause
    same = f"{parameters[clause.parameter].expression}.where(resolve() is Patient)" == patient.expression
    return Equals("patient", clause.terms) if same else clause


def open_audit(context: Context) -> AbstractAsyncContextManager[Audit | None]:
    """Where interactions are recorded; None where they are not. Raises OSError and ValueError."""
    settings, store = context.settings, context.unrestricted
    if settings.authentication == "off":
        return nullcontext()
    if settings.audit == "resources":
        if TYPE not in context.types:
            raise ValueError("`FHIR_AUDIT=resources` needs the type `AuditEvent` in the capability file.")
        parameters = context.parameters
        indexing = Indexing(
            lambda type, tree: parameters.current.index.make_entries(type, tree, settings.base_url),
            lambda: parameters.current.number,
            parameters.reload,
        )
        return open_audit_store(store, context.clock, context.new_id, indexing)
    return open_audit_file(settings.audit_folder, store, context.clock) if settings.audit_folder else nullcontext()
