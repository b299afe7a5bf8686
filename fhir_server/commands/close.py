"""`fhir-server close`: a month is closed, so that nothing counts in it any more and reports go on from it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated

import typer

from fhir_server.app import open_server, spare_collections
from fhir_server.fhir.outcome import FhirError
from fhir_server.requests.request import Caller
from fhir_server.settings import read_settings
from fhir_server.store.protocol import StoreError
from fhir_server.workers.posting.closings import MONTH_FORM
from fhir_server.workers.posting.practice import close_month
from fhir_server.workers.posting.writes import read_today


def close(
    month: Annotated[
        str, typer.Option(help="The month, such as `2026-03`; the one before this where it is left out.")
    ] = "",
    store: Annotated[str | None, typer.Option(help="Store URI (FHIR_STORE).")] = None,
) -> None:
    """Close a month: nothing is posted in it any more, and later reports go on from it."""
    try:
        asyncio.run(_close(store, month))
    except ValueError as error:
        typer.echo(f"`{month}` is no month; write it as `2026-03`." if month else str(error), err=True)
        raise typer.Exit(2) from None
    except (FhirError, StoreError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


async def _close(store: str | None, month: str) -> None:
    settings = read_settings() if store is None else read_settings(store=store)
    async with open_server(settings) as server:
        spare_collections()
        last = read_today(server.context).replace(day=1) - timedelta(days=1)
        day = await close_month(server.context, Caller(settings.base_url), month or last.strftime(MONTH_FORM), _wait)
    typer.echo(f"Closed until {day}.")


async def _wait(seconds: float) -> None:
    typer.echo(f"Waiting {seconds:.0f} s for writes that had begun …", err=True)
    await asyncio.sleep(seconds)
