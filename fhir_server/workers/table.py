"""The workers of this server, and the kinds of jobs that one of them carries on."""

from __future__ import annotations

from fhir_server.workers.jobs import JobStep, run_jobs
from fhir_server.workers.worker import Worker

JOBS: dict[str, JobStep] = {}
"""Kind of a job → one step of it."""

WORKERS: dict[str, Worker] = {
    worker.name: worker
    for worker in (Worker("jobs", "Carries on the long work that operations have started.", run_jobs(JOBS)),)
}
"""Name → worker."""
