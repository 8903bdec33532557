"""The figures that open a chapter."""

from __future__ import annotations

from collections.abc import Sequence

from dvdq_eval.latency.results import Latency
from dvdq_eval.report.material import Material
from dvdq_eval.report.summary import Summary
from dvdq_eval.tables.catalogue import OURS


def cards(material: Material, summaries: Sequence[Summary]) -> list[tuple[str, str]]:
    """Figures with what they are: how near and how much smaller ours is at each width, how fast, what failed."""
    found = []
    ours = [s for s in summaries if s.row.label == OURS and s.row.teacache is None and "psnr_db" in s.row.metrics]
    for summary in ours:
        psnr, smaller = summary.row.metrics["psnr_db"], summary.bytes_before / summary.row.bytes
        found.append((f"{psnr.mean:.1f} dB", f"PSNR of {OURS} {summary.row.bits}, {smaller:.2f}× smaller"))
    latencies = material.of(Latency)
    if not latencies:
        found += _videos_made(material, summaries)
    for file in latencies:
        quantized = [method for method in file.value.methods if method.bits]
        if quantized:
            # Ours, if it was measured; of its widths the fastest.
            best = max(quantized, key=lambda method: (method.label == OURS, method.ratio))
            found.append((f"{best.ratio:.2f}×", f"as fast a pass by {best.label} {best.bits} on {file.value.device}"))
    if material.study is not None and material.study.failures:
        found.append((str(len(material.study.failures)), "failed generations"))
    return found


def _videos_made(material: Material, summaries: Sequence[Summary]) -> list[tuple[str, str]]:
    """Where no pass was timed: full precision's seconds a video over those of our fastest."""
    exact = (
        {method.key for method in material.study.methods if method.about.exact} if material.study is not None else set()
    )
    timed = [(summary.seconds, summary.row) for summary in summaries if summary.seconds]
    full = [seconds for seconds, row in timed if row.key in exact]
    ours = [(seconds, row.bits) for seconds, row in timed if row.label == OURS and row.teacache is None]
    if not full or not ours:
        return []
    seconds, bits = min(ours)
    return [(f"{full[0] / seconds:.2f}×", f"as fast a video by {OURS} {bits}, as they were made")]
