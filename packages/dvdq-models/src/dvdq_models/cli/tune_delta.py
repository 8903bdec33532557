"""``dvdq tune-delta PIPELINE --prompt …``: the δ at which the bit switch reaches a wanted average width."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from dvdq_models.cli import options
from dvdq_models.cli.calls import call_arguments, check_call
from dvdq_models.cli.console import console, print_json, printable, progress_bar, say, typed
from dvdq_models.cli.opening import check_opening, open_pipeline
from dvdq_models.running.placement import FinishOn, Offload
from dvdq_models.switching.hook import hooks_of
from dvdq_models.switching.tuning import Trial, best_trial, check_wanted, tune_delta, write_delta
from dvdq_reference.spec.recipe import BitSchedule


def tune(
    context: typer.Context,
    pipeline: options.PipelineFolder,
    prompt: Annotated[list[str], typer.Option(help="What a video should show; several give one δ for all.")],
    average: Annotated[float, typer.Option(help="Wanted average width of activations, in bits.")] = 6.0,
    trials: Annotated[int, typer.Option(min=1, help="Runs at a chosen δ, after the one that is recorded.")] = 3,
    write: Annotated[bool, typer.Option("--write", help="Store δ in the checkpoint's recipe.")] = False,
    negative_prompt: options.NegativePrompt = "",
    height: options.Height = None,
    width: options.Width = None,
    frames: options.Frames = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_2: options.Guidance2 = None,
    embedded_guidance: options.EmbeddedGuidance = None,
    text_tokens: options.TextTokens = None,
    image: options.Image = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    offload: options.OffloadTo = Offload.NONE,
    finish_on: options.FinishPlace = FinishOn.DEVICE,
    backend: options.Backend = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Choose δ for a wanted average of activation bits, by running the switch on prompts of your own."""
    with typed():
        check_opening("tune-delta", pipeline, device, offload, finish_on)
    pipe = open_pipeline(pipeline, device=device, offload=offload, backend=backend, finish_on=finish_on)
    with typed():
        schedule = next(iter(hooks_of(pipe).values())).recipe.schedule
        check_wanted(schedule, average, trials)
        for number, text in enumerate(prompt):
            check_call("tune-delta", pipe, call_arguments("tune-delta", pipe, text, seed + number, context.params))
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("videos", total=(trials + 1) * len(prompt))

        def make(number: int, text: str) -> None:
            arguments = call_arguments("tune-delta", pipe, text, seed + number, context.params)
            pipe(**arguments, output_type="latent")
            progress.advance(task)

        videos = [partial(make, number, text) for number, text in enumerate(prompt)]
        done = tune_delta(pipe, videos, average, trials=trials)
    best = best_trial(done, average)
    if write:
        write_delta(pipeline, best.delta)
    if as_json:
        print_json(
            {
                "pipeline": str(pipeline),
                "prompts": prompt,
                "wanted_average": average,
                "delta": best.delta,
                "average_bits": best.average,
                "written": write,
                "trials": [
                    {
                        "delta": trial.delta,
                        "average_bits": trial.average,
                        "high": trial.count(schedule.high),
                        "low": trial.count(schedule.low),
                        "distances": trial.distances,
                    }
                    for trial in done
                ],
            }
        )
        return
    console.print(_table(done, best, schedule))
    stored = f"stored in {pipeline}" if write else "not stored; --write stores it"
    say(f"δ = {best.delta:.6g}", f": {best.average:.2f} bits on average, {printable(stored)}")


def _table(trials: list[Trial], best: Trial, schedule: BitSchedule) -> Table:
    table = Table()
    for heading in ("δ", "average bits", f"steps at {schedule.high}", f"steps at {schedule.low}"):
        table.add_column(heading, justify="right")
    for trial in trials:
        table.add_row(
            f"{trial.delta:.6g}",
            f"{trial.average:.2f}",
            str(trial.count(schedule.high)),
            str(trial.count(schedule.low)),
            style="bold" if trial is best else None,
        )
    return table
