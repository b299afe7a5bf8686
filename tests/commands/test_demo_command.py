"""`fhir-server demo` plays its story to the end; its amounts are those of the payer's answer: 95 = 55 + 15 + 20 + 5."""

from __future__ import annotations

import re

from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.commands.demo_story import STORY


def test_the_visit_ends_with_a_balance_of_zero() -> None:
    result = CliRunner().invoke(cli, ["demo"])
    assert result.exit_code == 0, result.output
    answers = re.findall(r"^   → (\d+): (.+)$", result.output, re.M)
    assert len(answers) == len(STORY) and {status for status, _ in answers} <= {"200", "201", "202"}
    told = {step.name: text for step, (_, text) in zip(STORY, answers, strict=True)}
    assert told["book"] == "the Appointment is booked" and told["check-in"] == "the Appointment is checked-in"
    assert told["scrub"] == "0 errors, so that it is ready to go out"
    assert (
        told["transmit"].startswith("the claim is sent, Task/") and told["delivery"] == "the delivery is acknowledged"
    )
    assert "CLM*" in result.output and told["state"] == "the claim is received"
    assert told["payment"] == "the PaymentReconciliation is active, its work complete"
    assert told["invoice"] == "an Invoice of 5.00"
    assert told["open"] == "charges 95.00, payments 75.00, adjustments 15.00, balance 5.00"
    assert told["balance"] == "charges 95.00, payments 80.00, adjustments 15.00, balance 0.00"
    for step in STORY:
        assert step.says in result.output
