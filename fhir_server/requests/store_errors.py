"""Errors of the store as FHIR errors with status and sentence: one place for requests and batch entries."""

from __future__ import annotations

from fhir_server.fhir.outcome import Conflict, FhirError, TooCostly, Unavailable
from fhir_server.store.protocol import (
    BudgetExceeded,
    StoreError,
    StoreUnavailable,
    TooLargeForStore,
)

_NARROW = (
    "Add a parameter that few resources match, such as an identifier, a `patient`, a code or a narrower date, or leave "
    "out what makes it look at every resource: `_sort` by a parameter without an order of its own, `:contains` with "
    "less than three characters, `:not`, `:missing`."
)


def store_error_to_fhir_error(error: StoreError) -> FhirError:
    """The FHIR error that a response shows for an error of the store."""
    if isinstance(error, StoreUnavailable):
        return Unavailable(str(error), headers=(("Retry-After", "5"),))
    if isinstance(error, TooLargeForStore):
        return TooCostly(f"{error} Nothing was written.")
    if isinstance(error, BudgetExceeded):
        return TooCostly(f"{error} {_NARROW}")
    return Conflict(f"Another write came in between: {error}. Nothing was written; try again.")
