"""Where the figures of a section come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LISTED = 6


@dataclass(frozen=True)
class Source:
    """A file that figures come from, and what :func:`dvdq_eval.provenance.provenance` said when it was written."""

    name: str
    provenance: Mapping[str, Any]


def origin(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Terms and values: files, commits, dates, machines, versions; sources that differ are listed."""
    said = [source.provenance for source in sources if source.provenance]
    dates = sorted(p["date"] for p in said)
    terms = (
        ("From", [source.name for source in sources]),
        ("Commit", [p["commit"] or "not a checkout" for p in said]),
        ("Made", dates if len(dates) < 2 or dates[0] == dates[-1] else [f"{dates[0]} to {dates[-1]}"]),
        ("Machine", [f"{p['processor']}, {p['cores']} cores, {p['threads']} threads, {p['device']}" for p in said]),
        ("System", [f"{p['platform']}, Python {p['python']}, DVD-Quant {p['dvdq']}" for p in said]),
        ("Libraries", [", ".join(f"{name} {version}" for name, version in p["libraries"].items()) for p in said]),
    )
    return [(term, _listed(values)) for term, values in terms if values]


def _listed(values: Sequence[str]) -> str:
    different = list(dict.fromkeys(values))
    more = len(different) - _LISTED
    return "; ".join(different[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
