"""A setting of this process's SQLite library, called through ctypes: not to count its memory (https://www.sqlite.org/c3ref/c_config_covering_index_scan.html#sqliteconfigmemstatus).

The count has one lock, which every allocation of every connection takes: threads that read and write at the same time
then wait for each other nearly all the time (`docs/decisions/0015`). `sqlite3` has no call for this option.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from functools import cache

_CONFIG_MEMSTATUS = 9
_DONE = 0


@cache
def stop_counting_memory() -> bool:
    """Turn the count off, once in a process; False if it stays on.

    It stays on where a connection is open already, since SQLite has to be stopped for the change, and where the
    library's functions cannot be reached.
    """
    try:
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_memory_used.restype = ctypes.c_int64
        if library.sqlite3_compileoption_used(b"DEFAULT_MEMSTATUS=0"):
            return True
        if library.sqlite3_memory_used() or library.sqlite3_shutdown() != _DONE:
            return False
        changed = library.sqlite3_config(_CONFIG_MEMSTATUS, ctypes.c_int(0)) == _DONE
        return bool(library.sqlite3_initialize() == _DONE) and bool(changed)
    except (AttributeError, OSError):  # built in, or its names are hidden
        return False
