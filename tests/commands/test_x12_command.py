"""`fhir-server x12 post`: files taken in from the command line as `$x12` takes them (docs/x12.md)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from mappers.x12.structure import check_interchange
from tests.conftest import serving
from tests.workers.x12_files import file, group, remittance, wrap, write_plan


@pytest.fixture
def site(known: Knowledge, tmp_path: Path) -> Path:
    """A folder with a store, a partner and files."""
    write_plan(tmp_path)

    async def make_store() -> None:
        async with serving(known, store=f"sqlite:///{tmp_path}/fhir.db"):
            pass

    asyncio.run(make_store())
    (tmp_path / "good.835").write_text(file(group(remittance())))
    bad = wrap("837", "0002", "BHT*0019*00*1*20260101*1200*CH~", "005010X222A1")
    (tmp_path / "mixed.835").write_text(file(group(remittance("0001", trace="T2"), bad), number="000000002"))
    (tmp_path / "none.835").write_text("MSH|^~")
    return tmp_path


def run(site: Path, *arguments: str) -> Result:
    store = ("--store", f"sqlite:///{site}/fhir.db")
    return CliRunner().invoke(cli, ["x12", *arguments, *store], env={"FHIR_PROFILES": str(site), "COLUMNS": "200"})


def test_files_are_taken_once_and_shown_set_by_set(site: Path) -> None:
    first = run(site, "post", str(site / "good.835"))
    assert (first.exit_code, "acknowledged" in first.output, "plan" in first.output) == (0, True, True), first.output
    again = run(site, "post", str(site / "good.835"))
    assert (again.exit_code, "accepted before" in again.output) == (0, True)


def test_what_is_refused_is_told_and_the_answers_can_be_had(site: Path) -> None:
    answer = run(site, "post", "--answers", str(site / "good.835"), str(site / "mixed.835"))
    assert answer.exit_code == 1
    assert "mixed.835: Task/" in answer.stderr and "Transaction sets 837 are not taken in here" in answer.stderr
    assert check_interchange(answer.stdout) == ()
    assert [each for each in answer.stdout.split("~") if each.startswith("IK5")] == ["IK5*A", "IK5*A", "IK5*R*1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("post", "{}/none.835"), "There is no interchange"),
        (("post", "{}/absent.835"), "No such file"),
        (("post", "--partner", "south", "{}/good.835"), "No partner `south` exchanges X12"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(site: Path, arguments: tuple[str, ...], says: str) -> None:
    answer = run(site, *(each.replace("{}", str(site)) for each in arguments))
    assert (answer.exit_code, says in answer.stderr) == (1, True), answer.output
