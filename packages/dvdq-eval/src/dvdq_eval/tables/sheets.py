"""A table of methods as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dvdq_eval.intervals import Interval
from dvdq_eval.sheets.markdown import markdown
from dvdq_eval.tables.metrics import METRICS
from dvdq_eval.tables.rows import Row, Table

_SIGNS = {"": "", "better": " ▲", "worse": " ▼"}
_OPTIONAL = {"average_bits": "activation bits", "reused": "passes reused"}
"""Columns that stand where a row has them."""


def table_markdown(table: Table) -> str:
    """Means with their intervals; ▲ or ▼ where a row is better or worse than its rival by more than chance."""
    metrics = [name for name in METRICS if any(name in row.metrics for row in table.rows)]
    some = {name: any(getattr(row, name) is not None for row in table.rows) for name in _OPTIONAL}
    timed = any(row.calibration_seconds is not None for row in table.rows)
    header = ["method", "bits a weight"]
    header += [heading for name, heading in _OPTIONAL.items() if some[name]]
    header += [METRICS[name].heading for name in metrics]
    if timed:
        header.append("preparing (s)")
    return markdown(header, (_cells(row, metrics, some, timed=timed) for row in table.rows))


def _cells(row: Row, metrics: list[str], some: Mapping[str, bool], *, timed: bool) -> Iterable[str]:
    yield row.title
    yield f"{row.bits_per_weight:.2f}"
    if some["average_bits"]:
        yield "–" if row.average_bits is None else f"{row.average_bits:.2f}"
    if some["reused"]:
        yield "–" if row.reused is None else f"{row.reused:.0%}"
    for name in metrics:
        yield _value(name, row.metrics.get(name), row.differences.get(name))
    if timed:
        calibration = "" if row.calibration_seconds is None else f" + {row.calibration_seconds:.0f} calibrating"
        yield f"{row.prepare_seconds:.1f}{calibration}"


def _value(name: str, value: Interval | None, paired: Interval | None) -> str:
    if value is None:
        return "–"
    metric = METRICS[name]
    half = max(value.high - value.mean, value.mean - value.low) * metric.unit
    return f"{value.mean * metric.unit:{metric.form}} ± {half:{metric.form}}{_SIGNS[metric.verdict(paired)]}"
