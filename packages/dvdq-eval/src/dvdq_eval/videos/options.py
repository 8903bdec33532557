"""Which study and which methods a command means: its options, as one object, and what they open."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, get_type_hints

import typer

from dvdq_eval.methods import LABELS
from dvdq_eval.videos.method import FULL_PRECISION, Method
from dvdq_eval.videos.study import CALIBRATION_VIDEOS, Study
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.running.placement import Offload, check_offload
from dvdq_models.running.prompts import read_prompts
from dvdq_reference.spec.errors import DvdqError

_PIPELINE = f"A bundled pipeline ({', '.join(BUNDLED)}) or the folder of any other."

PipelineArgument = Annotated[str, typer.Argument(help=_PIPELINE)]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help="RECIPE:BITS beside full precision, e.g. dvd-quant:W4A6; may be given again."),
]
Stored = Annotated[Path, typer.Option(help="Folder that keeps every video; a run goes on with what is there.")]
Workers = Annotated[int, typer.Option(min=1, help="Pipelines at once, by Ray; on GPUs, one each.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster, e.g. auto; default: this machine.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each worker; other counts, other rounding.")]

STORE = Path("out/videos")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """Which pipeline is meant and how it is called; :func:`takes` makes each field an option of a command."""

    pipeline: Annotated[str, typer.Option(help=_PIPELINE)] = "wan"
    steps: Annotated[int | None, typer.Option(min=4, help="Denoising steps; default: the pipeline's.")] = None
    preparing: Annotated[
        Path | None,
        typer.Option(
            help="Other prompts, to calibrate and to choose δ on; default: those of --prompts that are not measured."
        ),
    ] = None
    settings: Annotated[
        str | None,
        typer.Option(help='The pipeline\'s call as JSON: {"num_frames": 81, "height": 480, "width": 832}.'),
    ] = None
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="That the pipeline runs on: cpu in float32, or cuda in bfloat16.")
    ] = "cpu"
    offload: Annotated[
        Offload, typer.Option(help="For models that do not fit: keep the part, or the layers, at work there.")
    ] = Offload.NONE


@dataclass(frozen=True, kw_only=True)
class StudyOptions(PipelineOptions):
    """The study of a pipeline on its prompts or one's own."""

    videos: Annotated[int, typer.Option(min=2, help="Prompts that are measured.")] = 64
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file with one prompt a line, of which the first are measured; not for bundled."),
    ] = None

    def open(self, operation: str, samples: int = 1) -> Study:
        """The study; ``operation`` is for errors."""
        return open_study(
            operation,
            self.pipeline,
            videos=self.videos,
            samples=samples,
            steps=self.steps,
            prompts=self.prompts,
            preparing=self.preparing,
            settings=self.settings,
            device=self.device,
            offload=self.offload,
        )


def takes(options: type[T]) -> Callable[[Callable[Concatenate[T, P], R]], Callable[..., R]]:
    """A command whose first parameter is an ``options``, whose fields Typer then shows as its own."""

    def decorate(command: Callable[Concatenate[T, P], R]) -> Callable[..., R]:
        hints = get_type_hints(options, include_extras=True)
        fields = [field for field in dataclasses.fields(options) if field.init]  # type: ignore[arg-type]  # a dataclass
        shared = [_parameter(field.name, field.default, hints[field.name]) for field in fields]
        own_hints = get_type_hints(command, include_extras=True)
        _, *own = inspect.signature(command).parameters.values()
        others = [_parameter(parameter.name, parameter.default, own_hints[parameter.name]) for parameter in own]

        def run(**given: Any) -> R:
            chosen = options(**{field.name: given.pop(field.name) for field in fields})
            return command(chosen, **given)  # type: ignore[call-arg]  # what Typer read of its signature

        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__signature__ = inspect.Signature([*shared, *others])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*shared, *others)}
        return run

    return decorate


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    missing = default in (dataclasses.MISSING, inspect.Parameter.empty)
    default = inspect.Parameter.empty if missing else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def open_study(
    operation: str,
    pipeline: str,
    *,
    videos: int,
    samples: int = 1,
    steps: int | None = None,
    prompts: Path | None = None,
    preparing: Path | None = None,
    settings: str | None = None,
    device: str = "cpu",
    offload: Offload = Offload.NONE,
) -> Study:
    """The study of a bundled pipeline by name, or of a folder on prompts of one's own.

    Args:
        operation: for errors.
        pipeline: ``wan``, ``hunyuan-video``, or a folder.
        videos: how many prompts; of a file, the first.
        samples: videos of each prompt, each from noise of its own.
        steps: denoising steps; None leaves the pipeline's.
        prompts, preparing: files with one prompt a line, for a folder alone; without the second, the last of the
            first, as far as they are not measured, prepare.
        settings: further arguments of the pipeline's call, as a JSON object.
        device: that runs it.
        offload: what waits in the computer's memory.
    """
    check_offload(operation, device, offload)
    if pipeline in BUNDLED:
        if given := [name for name, value in (("prompts", prompts), ("preparing", preparing)) if value is not None]:
            raise DvdqError(operation, where=f"--{given[0]}", expected="none for a bundled pipeline", got="a file")
        study = Study.bundled(pipeline, videos, device=device, samples=samples)
        call = {**study.settings, **read_settings(operation, settings, steps)}
        return dataclasses.replace(study, settings=call, offload=offload)
    if prompts is None:
        raise DvdqError(operation, where=pipeline, expected="--prompts for a pipeline that is not bundled", got="none")
    asked = read_prompts(operation, prompts)
    # From the end, so that another number of videos does not make other methods.
    others = asked[videos:][-CALIBRATION_VIDEOS:] if preparing is None else read_prompts(operation, preparing)
    call = read_settings(operation, settings, steps)
    study = Study.of(Path(pipeline), asked[:videos], others, call, device, samples)
    return dataclasses.replace(study, offload=offload)


def read_settings(operation: str, text: str | None, steps: int | None) -> dict[str, Any]:
    """Arguments of a pipeline's call from a JSON object, its denoising steps replaced if ``steps`` is given."""
    try:
        settings = {} if text is None else json.loads(text)
    except ValueError as error:
        raise DvdqError(operation, where="--settings", expected="JSON", got=str(error)) from error
    if not isinstance(settings, dict):
        raise DvdqError(operation, where="--settings", expected="an object", got=text)
    return settings if steps is None else settings | {"num_inference_steps": steps}


def parse_methods(operation: str, names: Sequence[str]) -> tuple[Method, ...]:
    """Full precision, and what ``names`` say as ``RECIPE:BITS``, e.g. ``dvd-quant:W4A4``; each once, in their order."""
    found = [FULL_PRECISION]
    for name in names:
        recipe, _, bits = name.partition(":")
        if not bits:
            raise DvdqError(operation, where="--method", expected="RECIPE:BITS, e.g. dvd-quant:W4A4", got=repr(name))
        found.append(Method.named(LABELS.get(recipe, recipe), recipe, bits))
    return tuple(dict.fromkeys(found))
