"""Errors as FHIR issue codes, and the OperationOutcome they become (https://hl7.org/fhir/R4/operationoutcome.html).

FhirError
├── Invalid               400  invalid | structure | value | required …
├── NotSupported          400  not-supported
├── Unauthorized          401  login
├── Forbidden             403  forbidden
├── NotFound              404  not-found
├── MethodNotAllowed      405  not-supported
├── NotAcceptable         406  not-supported
├── TimedOut              408  timeout
├── Conflict              409  conflict
├── Deleted               410  deleted
├── PreconditionFailed    412  conflict
├── TooLarge              413  too-long
├── TooCostly             413  too-costly
├── UnsupportedMediaType  415  not-supported
├── Misdirected           421  security
├── Unprocessable         422  business-rule
└── Unavailable           503  transient
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Issue:
    """One `OperationOutcome.issue`; `expression` holds FHIRPaths such as `Patient.name[0].given`."""

    severity: str
    code: str
    diagnostics: str
    expression: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The issue as FHIR JSON."""
        issue: dict[str, Any] = {"severity": self.severity, "code": self.code, "diagnostics": self.diagnostics}
        if self.expression:
            issue["expression"] = list(self.expression)
        return issue


def build_operation_outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """An OperationOutcome resource as a JSON tree."""
    return {"resourceType": "OperationOutcome", "issue": [issue.to_json() for issue in issues]}


class FhirError(Exception):
    """An error that a user can cause or must know of: an HTTP status, response headers and one or more issues.

    `FhirError("A sentence.", code=…, expression=…)` has a single issue; `issues=` passes several.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "exception"

    def __init__(
        self,
        diagnostics: str = "",
        *,
        code: str | None = None,
        expression: Iterable[str] = (),
        issues: Iterable[Issue] = (),
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.issues = tuple(issues) or (Issue("error", code or self.code, diagnostics, tuple(expression)),)
        self.headers = tuple(headers)
        super().__init__(self.issues[0].diagnostics)

    def relocate(self, entry: str) -> FhirError:
        """The same error with the paths of a bundle: `Patient.name` becomes `Bundle.entry[3].resource.name`."""
        issues = (
            replace(issue, expression=tuple(_relocate_path(path, entry) for path in issue.expression) or (entry,))
            for issue in self.issues
        )
        return type(self)(issues=issues, headers=self.headers)


def _relocate_path(path: str, entry: str) -> str:
    if path.startswith(entry):
        return path
    if path.startswith("["):  # a position in a patch document
        return f"{entry}.resource{path}"
    _, dot, rest = path.partition(".")
    return f"{entry}.resource{dot}{rest}"


class Invalid(FhirError):
    """The request or resource breaks base FHIR."""

    status, code = 400, "invalid"


class NotSupported(FhirError):
    """Well-formed, but this server does not do it."""

    status, code = 400, "not-supported"


class Unauthorized(FhirError):
    """The request carries no valid credentials; `headers` has the `WWW-Authenticate` that says which are taken."""

    status, code = 401, "login"


class Forbidden(FhirError):
    """The principal may not do this."""

    status, code = 403, "forbidden"


class NotFound(FhirError):
    """No such resource, version or route."""

    status, code = 404, "not-found"


class MethodNotAllowed(FhirError):
    """The URL exists, but not with this HTTP method."""

    status, code = 405, "not-supported"


class NotAcceptable(FhirError):
    """No representation that the client accepts."""

    status, code = 406, "not-supported"


class TimedOut(FhirError):
    """The request passed its time limit."""

    status, code = 408, "timeout"


class Conflict(FhirError):
    """A write lost against another one, or would break a reference."""

    status, code = 409, "conflict"


class Deleted(FhirError):
    """The resource was deleted."""

    status, code = 410, "deleted"


class PreconditionFailed(FhirError):
    """If-Match, or the criteria of a conditional interaction, did not hold."""

    status, code = 412, "conflict"


class TooLarge(FhirError):
    """The body is larger than the limit."""

    status, code = 413, "too-long"


class TooCostly(FhirError):
    """The work asked for is larger than the limit; nothing was done."""

    status, code = 413, "too-costly"


class UnsupportedMediaType(FhirError):
    """The body's content type is not FHIR JSON."""

    status, code = 415, "not-supported"


class Misdirected(FhirError):
    """The request names a host that is no name of this server."""

    status, code = 421, "security"


class Unprocessable(FhirError):
    """Valid base FHIR that breaks a profile, a business rule or a reference."""

    status, code = 422, "business-rule"


class TooManyRequests(FhirError):
    """A principal asks more often than it may."""

    status, code = 429, "throttled"


class NotImplementedHere(FhirError):
    """What this installation lacks: a library of an extra that is not installed."""

    status, code = 501, "not-supported"


class Unavailable(FhirError):
    """The store cannot answer now (disk full, read-only, primary away); nothing was written."""

    status, code = 503, "transient"
