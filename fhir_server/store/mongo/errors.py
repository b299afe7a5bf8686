"""The driver's errors as the store's (https://www.mongodb.com/docs/manual/reference/error-codes/)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
    WTimeoutError,
)

from fhir_server.store.protocol import BudgetExceeded, StoreError, StoreUnavailable, TooLargeForStore

TRANSIENT, UNKNOWN_COMMIT = "TransientTransactionError", "UnknownTransactionCommitResult"

LIFETIME_PASSED, NO_SUCH_TRANSACTION = 290, 251

BUSY = frozenset({46, 117})
"""LockBusy, ConflictingOperationInProgress: another process makes the same index, or a chunk of a shard moves."""

_DUPLICATE_KEY, _WRITE_CONFLICT = 11000, 112
# LockTimeout, WriteConflict, SnapshotUnavailable, NoSuchTransaction, PreparedTransactionInProgress
_CONFLICTS = frozenset({24, _WRITE_CONFLICT, 246, NO_SUCH_TRANSACTION, 267})
# TransactionTooLarge, BSONObjectTooLarge, and two that mongod gives without a name
_TOO_LARGE = frozenset({257, 10334, 17419, 17420})
# TransactionTooLargeForCache, from 6.3 on: the same however often it is tried
_TOO_LARGE_FOR_CACHE = 388
# ExceededTimeLimit: of the server's own limits, beside MaxTimeMSExpired, which the driver raises as ExecutionTimeout
_TIME_PASSED = 262
# ExceededMemoryLimit, QueryExceededMemoryLimitNoDiskUseAllowed, and those of sorts and groups in earlier versions
_TOO_COSTLY = frozenset({146, 292, 16819, 16820, 16945})
_UNAUTHORISED = frozenset({13, 18})

CLOSED = "The MongoDB store is closed; nothing was written."
TOO_LONG = (
    "The transaction took longer than the database keeps one open (`transactionLifetimeLimitSeconds`); nothing was "
    "written. Send it in several smaller transactions."
)
TOO_LARGE_FOR_CACHE = (
    "The transaction changes more than the database's cache holds; nothing was written. Send it in several smaller "
    "transactions, or give `mongod` more cache (`cacheSizeGB`)."
)

CACHE_REFUSED = (
    "The database refused the transaction again and again, although nothing else changed what it changes: it takes "
    "more than a fifth of the database's cache. Nothing was written. Send it in several smaller transactions, or give "
    "`mongod` more cache (`cacheSizeGB`)."
)


def is_duplicate(error: PyMongoError) -> bool:
    """Whether an `_id` was there already."""
    if isinstance(error, BulkWriteError):
        return _DUPLICATE_KEY in _collect_codes(error)
    return isinstance(error, DuplicateKeyError)


def is_transient(error: PyMongoError) -> bool:
    """Whether the same transaction may succeed when it is tried again from its start."""
    if error.has_error_label(TRANSIENT) or is_duplicate(error):
        return True
    return is_conflict(error)


def is_conflict(error: PyMongoError) -> bool:
    """Whether another transaction is said to have been faster."""
    return bool(_CONFLICTS & _collect_codes(error))


def is_too_costly(error: PyMongoError) -> bool:
    """Whether the database stopped a question for its memory."""
    return bool(_TOO_COSTLY & _collect_codes(error))


def _collect_codes(error: PyMongoError) -> set[int]:
    """The code of an error, and those of the writes of a bulk."""
    details = error.details if isinstance(error, BulkWriteError) else {}
    return {getattr(error, "code", None) or 0, *(each.get("code", 0) for each in details.get("writeErrors", ()))}


def translate_error(error: PyMongoError) -> StoreError:
    """The error as the protocol names it, its text a full sentence."""
    codes = _collect_codes(error)
    if isinstance(error, DocumentTooLarge) or codes & _TOO_LARGE:
        return TooLargeForStore(f"The database takes no document or transaction that large ({error}).")
    if _TOO_LARGE_FOR_CACHE in codes:
        return TooLargeForStore(TOO_LARGE_FOR_CACHE)
    if isinstance(error, ExecutionTimeout) or _TIME_PASSED in codes:
        return BudgetExceeded("The search took longer than the time it is given.")
    if is_too_costly(error):
        return BudgetExceeded("The search was stopped: it sorts or gathers more than the database holds in memory.")
    if isinstance(error, WaitQueueTimeoutError):
        return StoreUnavailable(
            "All connections of this process to MongoDB stayed in use (`maxPoolSize` in the URI). Try again."
        )
    if isinstance(error, NetworkTimeout | WTimeoutError):
        return StoreUnavailable("MongoDB does not answer in time. Try again.")
    if isinstance(error, ConnectionFailure):
        return StoreUnavailable("MongoDB has no primary that can be reached; nothing was written. Try again.")
    if isinstance(error, OperationFailure) and error.code in _UNAUTHORISED:
        return StoreUnavailable(
            f"MongoDB refuses this user: {_format_message(error)}. Check its password and its roles."
        )
    return StoreUnavailable(f"The database failed: {_format_message(error)}.")


def _format_message(error: PyMongoError) -> str:
    details = getattr(error, "details", None) or {}
    return str(details.get("errmsg") or error).rstrip(".")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raises the store's errors for the driver's."""
    try:
        yield
    except PyMongoError as error:
        raise translate_error(error) from error
