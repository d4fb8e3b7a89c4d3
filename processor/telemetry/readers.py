"""OpenTelemetry's metric readers, with the meter's histograms added to what the SDK has collected."""

import time
from collections.abc import Iterator
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import export as otel

from processor.telemetry.histogram import Histogram
from processor.telemetry.meter import WorkerMeter

SCOPE = "tidemark"

_Labelled = list[tuple[Histogram, dict[str, str]]]


class Histograms:
    """The histograms of a meter, as the SDK has them."""

    def __init__(self, meter: WorkerMeter) -> None:
        self._meter = meter
        self._began_ns = time.time_ns()

    def added_to(self, collected: otel.MetricsData) -> otel.MetricsData:
        """What was collected, and the histograms."""
        metrics = [self._metric(*named) for named in self._named()]
        return otel.MetricsData(
            [
                otel.ResourceMetrics(of.resource, [_with(scope, metrics) for scope in of.scope_metrics], of.schema_url)
                for of in collected.resource_metrics
            ]
        )

    def _named(self) -> Iterator[tuple[str, str, str, _Labelled]]:
        meter = self._meter
        stages: _Labelled = [(histogram, {"stage": stage}) for stage, histogram in meter.stages.items()]
        yield "stage.duration", "s", "A stage of a cycle (load, decode and decide, commit) or a log (publish).", stages
        about = "From a command record's timestamp until its reply is acknowledged."
        yield "command.duration", "s", about, [(meter.end_to_end, {})]
        yield "cycle.commands", "", "Commands in a cycle.", [(meter.cycle_sizes, {})]

    def _metric(self, name: str, unit: str, about: str, labelled: _Labelled) -> otel.Metric:
        points = [self._point(histogram, labels) for histogram, labels in labelled]
        data = otel.Histogram(points, otel.AggregationTemporality.CUMULATIVE)
        return otel.Metric(f"{SCOPE}.{name}", about, unit, data)

    def _point(self, histogram: Histogram, labels: dict[str, str]) -> otel.HistogramDataPoint:
        counted = histogram.counted()
        return otel.HistogramDataPoint(
            attributes=labels,
            start_time_unix_nano=self._began_ns,
            time_unix_nano=time.time_ns(),
            count=sum(counted.buckets),
            sum=counted.sum,
            bucket_counts=counted.buckets,
            explicit_bounds=histogram.bounds,
            min=counted.least,
            max=counted.most,
        )


def _with(scope: otel.ScopeMetrics, metrics: list[otel.Metric]) -> otel.ScopeMetrics:
    """Into the scope that is there: of two with one name, an exporter sends the last."""
    if scope.scope.name != SCOPE:
        return scope
    return otel.ScopeMetrics(scope.scope, [*scope.metrics, *metrics], scope.schema_url)


class TextReader(PrometheusMetricReader):
    """For Prometheus, when it asks."""

    def __init__(self, histograms: Histograms, **options: Any) -> None:
        self._histograms = histograms
        super().__init__(**options)

    def _receive_metrics(self, metrics_data: otel.MetricsData, timeout_millis: float = 10_000, **options: Any) -> None:
        super()._receive_metrics(self._histograms.added_to(metrics_data), timeout_millis, **options)


class PushReader(otel.PeriodicExportingMetricReader):
    """To a collector, again and again."""

    def __init__(self, histograms: Histograms, exporter: otel.MetricExporter, **options: Any) -> None:
        self._histograms = histograms
        super().__init__(exporter, **options)

    def _receive_metrics(self, metrics_data: otel.MetricsData, timeout_millis: float = 10_000, **options: Any) -> None:
        super()._receive_metrics(self._histograms.added_to(metrics_data), timeout_millis, **options)
