"""The event loop of the client commands: uvloop where it exists (https://uvloop.readthedocs.io)."""

try:
    from uvloop import run
except ImportError:
    from asyncio import run  # type: ignore[assignment]

__all__ = ["run"]
