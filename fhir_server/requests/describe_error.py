"""What a log may say of an unexpected error: its type and place, since its message could hold a resource's content."""

from __future__ import annotations

import traceback


def describe_error(error: BaseException) -> dict[str, object]:
    """The type, and the last twelve frames as `file:line function`."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "type": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]],
    }
