"""The workers of this server, and the kinds of jobs that one of them carries on."""

from __future__ import annotations

from fhir_server.workers.delivery import run_deliveries
from fhir_server.workers.folders import watch_folders
from fhir_server.workers.formats import FILE_FORMATS
from fhir_server.workers.hl7v2_sending import step_sending
from fhir_server.workers.holds import tidy_holds
from fhir_server.workers.jobs import JobStep, run_jobs
from fhir_server.workers.merges import step_merges
from fhir_server.workers.message_outbox import OUTBOX, step_retention
from fhir_server.workers.operation_jobs import KIND, run_operation
from fhir_server.workers.postings import step_postings
from fhir_server.workers.published_slots import keep_free_slots
from fhir_server.workers.waitlist import offer_freed_times
from fhir_server.workers.worker import Worker
from fhir_server.workers.x12_unanswered import step_unanswered

JOBS: dict[str, JobStep] = {KIND: run_operation}
"""Kind of a job → one step of it."""

WORKERS: dict[str, Worker] = {
    worker.name: worker
    for worker in (
        Worker("jobs", "Carries on the long work that operations have started.", run_jobs(JOBS)),
        Worker("holds", "Cancels holds of appointments that have expired.", tidy_holds, seconds=60.0),
        Worker("slots", "Keeps free Slots for Schedules that ask for them.", keep_free_slots, seconds=30.0),
        Worker("waitlist", "Offers times that became free to patients who wait.", offer_freed_times, seconds=5.0),
        Worker("sending", "Makes the messages of changes that partners are sent.", step_sending),
        Worker("deliveries", "Sends the messages that wait to go to partners.", run_deliveries(OUTBOX)),
        Worker("folders", "Takes in the files that partners put into their folders.", watch_folders(FILE_FORMATS)),
        Worker("postings", "Posts the remittances that were taken in.", step_postings, seconds=2.0),
        Worker("merges", "Moves the references of merged patients, accounts and visits.", step_merges, seconds=2.0),
        Worker("unanswered", "Asks a person about claims that a partner has not answered.", step_unanswered, 3600),
        Worker("retention", "Removes messages that are older than their partner's retention.", step_retention, 3600),
    )
}
"""Name → worker."""
