"""Activation bits over denoising steps."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from dvdq_eval.charts.plot import LEFT, Plot
from dvdq_models.switching.schedule import StepDecision

LEGEND = (("high", "8-bit step"), ("low", "4-bit step"))
_ROW = 44


def bit_trace(prompt: str, steps: Sequence[StepDecision], delta: float) -> Markup:
    """One video's switch: the sum that decided each step against δ, above a strip of the widths that followed."""
    sums = [step.accumulated for step in steps if step.accumulated is not None]
    plot = Plot(
        f"Accumulated change before each step of {prompt}, and the activation bits chosen",
        (0.0, float(len(steps))),
        (0.0, 1.15 * max([delta, *sums])),
        x_label="denoising step",
        y_label="sum of changes",
        width=560,
        height=230,
        bottom=76,
    )
    plot.y_axis(count=3)
    high = max(step.bits for step in steps)
    strip = plot.height - plot.bottom + 8
    for step in steps:
        css = "skipped" if step.skipped else "high" if step.bits == high else "low"
        tip = f"step {step.step + 1}: {'skipped' if step.skipped else f'{step.bits} bits'}, {step.reason}"
        if step.accumulated is not None:
            plot.bar(step.step + 0.15, step.step + 0.85, 0.0, step.accumulated, f"{css} soft", tip)
        left, right = plot.x(step.step + 0.06), plot.x(step.step + 0.94)
        plot.box(left, strip, right - left, 18, css, tip)
        if len(steps) <= 40 and not step.skipped:
            plot.text((left + right) / 2, strip + 13, str(step.bits), "cell mid")
    plot.line([(0.0, delta), (float(len(steps)), delta)], "threshold")
    plot.text(plot.width - 14, plot.y(delta) - 6, f"δ = {delta:.3g}", "tick end strong")
    _step_numbers(plot, len(steps), strip + 34)
    return plot.markup


def bit_shares(rows: Sequence[tuple[str, Sequence[float]]]) -> Markup:
    """One strip a method: for each step, the share of videos that ran it at the high width."""
    steps = max(len(shares) for _, shares in rows)
    plot = Plot(
        "Share of videos at the high width in each denoising step, by method",
        (0.0, float(steps)),
        (0.0, 1.0),
        x_label="denoising step",
        height=_ROW * len(rows) + 46,
    )
    for row, (label, shares) in enumerate(rows):
        top = _ROW * row + 22
        plot.text(LEFT, top - 6, label, "strong")
        for step, share in enumerate(shares):
            left, right = plot.x(step + 0.06), plot.x(step + 0.94)
            tip = f"{label}, step {step + 1}: {share:.0%} of the videos at the high width"
            plot.box(left, top, right - left, 18, "low")
            plot.box(left, top, right - left, 18, "high", tip, opacity=share)
    _step_numbers(plot, steps, plot.height - 24)
    return plot.markup


def _step_numbers(plot: Plot, steps: int, y: float) -> None:
    """Numbers from 1 below the steps, of more than twelve every fifth."""
    every = 5 if steps > 12 else 1
    for number in (0, *range(every - 1, steps, every)) if every > 1 else range(steps):
        plot.text(plot.x(number + 0.5), y, str(number + 1), "tick mid")
    plot.x_axis([])
