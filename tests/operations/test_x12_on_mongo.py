"""`$x12` on MongoDB: many at once draft a set once, and a set that is refused is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from tests.conftest import serving
from tests.operations.payments.remittances import post_all
from tests.operations.test_x12_operation import find
from tests.workers.x12_files import file, group, pick, post, remittance, write_plan

pytestmark = pytest.mark.anyio


async def test_posted_by_many_at_once_a_set_is_drafted_once(
    known: Knowledge, new_mongo_uri: Callable[[], str], tmp_path: Path
) -> None:
    uri, profiles = new_mongo_uri(), write_plan(tmp_path)
    async with (
        serving(known, store=uri, profiles=profiles) as one,
        serving(known, store=uri, profiles=profiles) as other,
    ):
        bad = remittance("0002", trace="T2").replace("SE*14", "SE*9")
        files = [file(group(remittance(), bad))] * 4
        answers = await asyncio.gather(*(post(*each) for each in zip((one, other) * 2, files, strict=True)))
        assert [pick(each, "IK5") for each in answers] == [["IK5*A", "IK5*R*4"]] * 4
        assert len(await find(one, "Task?code=message-intake")) == 2
        assert await post_all(one) == 1
        (payment,) = await find(other, "PaymentReconciliation?status=active")
        assert payment["paymentIdentifier"]["value"] == "T1"
