"""What Prometheus reads: how much is waiting, how long the network takes, what came of jobs and requests."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
LONG = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)  # s


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._jobs = Counter("fluxone_jobs", "Jobs that are settled", ["status"], registry=self.registry)
        self._requests = Counter("fluxone_requests", "HTTP requests", ["path", "status"], registry=self.registry)
        self._seconds = Histogram("fluxone_pass_seconds", "Passes of a network", registry=self.registry)
        self._batch = Histogram(
            "fluxone_pass_pictures", "Pictures in a pass of a network", buckets=BATCHES, registry=self.registry
        )
        self._stages = Histogram(
            "fluxone_stage_seconds", "Of jobs", ["stage"], buckets=LONG, registry=self.registry
        )
        ProcessCollector(registry=self.registry)  # memory and processor time
        self._gauges = {
            "waiting": Gauge("fluxone_waiting", "Requests that wait", registry=self.registry),
            "begun": Gauge("fluxone_begun", "Requests that are drawn", registry=self.registry),
            "device": Gauge("fluxone_device_bytes", "Memory of accelerators in use", registry=self.registry),
        }

    def passed(self, pictures: int, seconds: float) -> None:
        """A network was run once."""
        self._batch.observe(pictures)
        self._seconds.observe(seconds)

    def took(self, stage: str, seconds: float) -> None:
        """A stage of a job is over: it waited, was drawn, or was saved."""
        self._stages.labels(stage=stage).observe(seconds)

    def settled(self, status: str) -> None:
        """A job has ended."""
        self._jobs.labels(status=status).inc()

    def answered(self, path: str, status: int) -> None:
        """An HTTP request was answered; `path` is the route, not what the client wrote."""
        self._requests.labels(path=path, status=str(status)).inc()

    def watch(self, name: str, value: Callable[[], float]) -> None:
        """Read a gauge from a function, whenever somebody asks."""
        self._gauges[name].set_function(value)

    def text(self) -> bytes:
        """In Prometheus' own format."""
        return generate_latest(self.registry)
