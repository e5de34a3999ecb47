"""Traces for OpenTelemetry: a span a job, and in it one each for waiting, drawing and saving. No prompts.

    job ends --its times--> spans --OTLP over HTTP--> the operator's collector
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxone import __version__
from fluxone.errors import MissingExtra
from fluxone.serve.task import Task

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

NANO = 1_000_000_000
PATH = "/v1/traces"


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Where spans go. `provider` is shut down with the server."""

    provider: TracerProvider
    tracer: Tracer

    def job(self, task: Task, *, endpoint: str, status: str, saving: float) -> None:
        """Tell of a job that is settled.

        Args:
            saving: s, that its picture took to be saved.
        """
        from opentelemetry import trace

        wanted, now = task.wanted, time.time()
        shift = now - time.monotonic()  # from the task's clock to the wall's
        drawn = now - saving
        marks = {"waiting": (task.put + shift, task.begun + shift), "drawing": (task.begun + shift, drawn)}
        marks["saving"] = (drawn, now)
        told: dict[str, Any] = {
            "fluxone.id": wanted.id, "fluxone.endpoint": endpoint, "fluxone.model": wanted.model,
            "fluxone.status": status, "fluxone.steps": task.steps, "fluxone.size": str(wanted.request.resolution),
        }  # fmt: skip
        whole = self.tracer.start_span("job", attributes=told, start_time=int((task.put + shift) * NANO))
        inside = trace.set_span_in_context(whole)
        for name, (began, ended) in marks.items():
            span = self.tracer.start_span(name, context=inside, start_time=int(began * NANO))
            span.end(int(max(began, ended) * NANO))
        if status == "error":
            whole.set_status(trace.StatusCode.ERROR)
        whole.end(int(now * NANO))

    def stop(self) -> None:
        """Send what is left."""
        self.provider.shutdown()


def traces_to(url: str) -> Traces | None:
    """What sends spans to a collector, such as `http://localhost:4318`; None without one.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """
    if not url:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtra("traces", "sending traces needs OpenTelemetry, which is not installed") from None
    provider = TracerProvider(resource=Resource({"service.name": "fluxone", "service.version": __version__}))
    place = url.rstrip("/")
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=place if place.endswith(PATH) else place + PATH))
    )
    return Traces(provider=provider, tracer=provider.get_tracer("fluxone", __version__))
