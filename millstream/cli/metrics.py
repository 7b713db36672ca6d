"""What Prometheus scrapes: every job of a log, as its host last said."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIServer

from millstream.errors import MissingExtraError
from millstream.log import Log
from millstream.runtime.control import JobControl, JobRecord, JobState, job_names

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

WORKER_METRICS = {
    "rows_read": "Rows read from streams and tables in this attempt.",
    "rows_written": "Rows written to sinks in this attempt.",
    "lag_rows": "Rows of the worker's streams that are still to be read.",
    "busy_us": "Microseconds spent working.",
    "backpressured_us": "Microseconds spent waiting for room at another worker.",
    "idle_us": "Microseconds spent waiting for rows.",
    "watermark_us": "Watermark, in microseconds since 1970 UTC.",
}
OPERATOR_METRICS = {
    "rows_in": "Rows that came in.",
    "rows_out": "Rows that went out.",
    "rows_late": "Rows that came too late.",
    "rows_failed": "Rows that could not be computed, and were skipped or made dead letters.",
    "bytes_in": "Bytes that came in.",
    "bytes_out": "Bytes that went out.",
    "busy_us": "Microseconds spent computing.",
    "state_keys": "Keys held in state.",
    "state_bytes": "Bytes held in state, in memory.",
    "state_disk_bytes": "Bytes of state beyond the memory budget, on disk.",
}
JOB_METRICS = {
    "attempt": "The present attempt, counted from 1.",
    "checkpoint": "Number of the newest completed checkpoint.",
    "checkpoint_us": "When it was completed, in microseconds since 1970 UTC.",
    "checkpoint_bytes": "State that a restore from it would read.",
    "checkpoints": "Checkpoints completed in this run.",
}


def serve(log: Log, host: str, port: int) -> tuple[WSGIServer, Thread]:
    """Serve `/metrics` from a thread; port 0 chooses a free one.

    Raises
    ------
    MissingExtraError
        When prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        message = "package 'prometheus-client' is missing: pip install 'millstream[metrics]'"
        raise MissingExtraError(message) from error
    registry = CollectorRegistry()
    registry.register(JobsCollector(log))
    started: tuple[Any, Thread] = start_http_server(port, addr=host, registry=registry)
    return started


class JobsCollector:
    """Reads the jobs' state files at each scrape.

    Parameters
    ----------
    log
        Whose jobs.
    """

    def __init__(self, log: Log) -> None:
        self._log = log

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every metric."""
        from prometheus_client.core import GaugeMetricFamily

        records = [JobControl(self._log, name).record() for name in job_names(self._log)]
        known = [each for each in records if each is not None]
        states = GaugeMetricFamily(
            "millstream_job_state", "1 for the state that a job is in.", labels=["job", "state"]
        )
        for record in known:
            for state in JobState:
                states.add_metric([record.job, state.value], float(record.state is state))
        yield states
        yield from _of_jobs(known)
        yield from _of_workers(known)
        yield from _of_operators(known)


def _of_jobs(records: list[JobRecord]) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    for name, text in JOB_METRICS.items():
        family = GaugeMetricFamily(f"millstream_job_{name}", text, labels=["job"])
        for record in records:
            value = getattr(record, name)
            if value is not None:
                family.add_metric([record.job], value)
        yield family


def _of_workers(records: list[JobRecord]) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    for name, text in WORKER_METRICS.items():
        family = GaugeMetricFamily(f"millstream_worker_{name}", text, labels=["job", "worker"])
        for record in records:
            for worker in record.workers:
                value = getattr(worker, name)
                if value is not None:
                    family.add_metric([record.job, str(worker.worker)], value)
        yield family


def _of_operators(records: list[JobRecord]) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    labels = ["job", "worker", "operator"]
    for name, text in OPERATOR_METRICS.items():
        family = GaugeMetricFamily(f"millstream_operator_{name}", text, labels=labels)
        for record in records:
            for worker in record.workers:
                for operator, status in worker.operators.items():
                    where = [record.job, str(worker.worker), operator]
                    family.add_metric(where, getattr(status, name))
        yield family
