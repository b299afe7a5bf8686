"""ADT: the patient, the visit and what surrounds both, or what becomes one."""

from __future__ import annotations

from mappers.hl7v2.context import Context
from mappers.hl7v2.er7 import Segment
from mappers.hl7v2.events import PERSON
from mappers.hl7v2.groups import Group
from mappers.hl7v2.merges import MERGES, Merge, mrg_to_merges
from mappers.hl7v2.patients import pid_to_patient
from mappers.hl7v2.subjects import NOTHING, map_subject
from mappers.hl7v2.visits import pid_to_account, pv1_to_encounter


def map_adt(root: Group, context: Context) -> list[Merge]:
    """Patient, visit, insurance and what was found; merges for the events that merge."""
    merges: list[Merge] = []
    for group in root.list_children("PATIENT") or [root]:
        if not group.segment("PID").values:
            context.refuse("100", "The message has no PID segment.", Segment("PID", ()).place())
        elif context.event == "A29":
            pid_to_patient(group, context).resource["active"] = False
        elif context.event in MERGES:
            merges += _map_merges(group, context)
        else:
            map_subject(group, NOTHING if context.event in PERSON else group, context)
    return merges


def _map_merges(group: Group, context: Context) -> list[Merge]:
    pid = group.segment("PID")
    patient = pid_to_patient(group, context)
    account = pid_to_account(pid, patient, context)
    encounter = pv1_to_encounter(group, patient, account, context) if context.event == "A42" else None
    survivors = {"Patient": patient, "Account": account, "Encounter": encounter}
    if not group.holds("MRG"):
        context.refuse("100", "A merge needs the segment MRG.", pid.place())
    return [merge for mrg in group.all("MRG") for merge in mrg_to_merges(mrg, survivors, context)]
