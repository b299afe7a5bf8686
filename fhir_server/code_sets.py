"""The code sets of the site as operations and workers look them up (docs/code-sets.md)."""

from __future__ import annotations

from pathlib import Path

from fhir_server.requests.context import Context
from mappers.billing.code_sets import SETS, CodeSets, open_code_sets

_KEY = "code sets"


def read_code_sets(context: Context) -> CodeSets:
    """The sets that the site has loaded; none without the setting. A set that was loaded again is opened anew.

    The files are mapped, not read, so that this may be called for every request.
    """
    if not context.settings.code_sets:
        return CodeSets()
    folder = Path(context.settings.code_sets)
    stamp = tuple(_stamp(folder / name) for name in SETS)
    before, found = context.snapshots.get(_KEY, (None, None))
    if found is None or before != stamp:
        # The sets before are not closed: a request that still holds them goes on with them.
        found = open_code_sets(folder)
        context.snapshots[_KEY] = (stamp, found)
    return found  # type: ignore[no-any-return]


def _stamp(path: Path) -> tuple[int, int] | None:
    """What differs when a file was replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
