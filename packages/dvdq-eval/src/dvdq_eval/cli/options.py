"""Options that several commands share: which study and which methods they mean, and what these open."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, get_type_hints

import torch
import typer

from dvdq_eval.passes.subject import PUBLISHED
from dvdq_eval.videos.study import CALIBRATION_VIDEOS, Study
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.running.placement import Offload, check_offload
from dvdq_models.running.prompts import read_prompts
from dvdq_reference.spec.errors import DvdqError

_PIPELINE = f"A bundled pipeline ({', '.join(BUNDLED)}) or the folder of any other."

PipelineArgument = Annotated[str, typer.Argument(help=_PIPELINE)]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="RECIPE:BITS or RECIPE:BITS:feedback beside full precision, e.g. dvd-quant:W4A6; may be given again.",
    ),
]
Stored = Annotated[Path, typer.Option(help="Folder that keeps every video; a run goes on with what is there.")]
Workers = Annotated[int, typer.Option(min=1, help="Pipelines at once, by Ray; on GPUs, one each.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster, e.g. auto; default: this machine.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each worker; other counts, other rounding.")]
OwnThreads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")]
STORE = Path("out/videos")
DEFAULT_METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A4")

Model = Annotated[
    str,
    typer.Argument(
        help=f"A bundled pipeline ({', '.join(BUNDLED)}), a published configuration with random weights "
        f"({', '.join(PUBLISHED)}), a folder of a pipeline or transformer, or a config.json."
    ),
]
Video = Annotated[
    str | None, typer.Option(help="Frames x height x width, e.g. 81x480x832; a bundled pipeline has its own.")
]
PassMethods = Annotated[
    list[str] | None,
    typer.Option("--method", help=f"RECIPE:BITS; may be given again. Default: {' and '.join(DEFAULT_METHODS)}."),
]
TextTokens = Annotated[int | None, typer.Option(min=1, help="Of the prompt; default: the pipeline's.")]
Random = Annotated[bool, typer.Option("--random", help="Random weights, whatever is in the folder.")]

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
        """The study of a bundled pipeline by name, or of a folder on prompts of one's own; ``operation`` is for errors.

        Of ``samples`` videos of each prompt, each starts from noise of its own. Without prompts to prepare with, those
        of the file that are not measured do, as many as calibration takes from its end.
        """
        check_offload(operation, self.device, self.offload)
        call = read_settings(operation, self.settings, self.steps)
        if self.pipeline in BUNDLED:
            files = {"prompts": self.prompts, "preparing": self.preparing}
            if given := [name for name, file in files.items() if file is not None]:
                raise DvdqError(operation, where=f"--{given[0]}", expected="none for a bundled pipeline", got="a file")
            study = Study.bundled(self.pipeline, self.videos, device=self.device, samples=samples)
            return dataclasses.replace(study, settings={**study.settings, **call}, offload=self.offload)
        if self.prompts is None:
            expected = "--prompts for a pipeline that is not bundled"
            raise DvdqError(operation, where=self.pipeline, expected=expected, got="none")
        asked = read_prompts(operation, self.prompts)
        # From the end, so that another number of videos does not make other methods.
        rest = asked[self.videos :][-CALIBRATION_VIDEOS:]
        others = rest if self.preparing is None else read_prompts(operation, self.preparing)
        study = Study.of(Path(self.pipeline), asked[: self.videos], others, call, self.device, samples)
        return dataclasses.replace(study, offload=self.offload)


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


def read_settings(operation: str, text: str | None, steps: int | None) -> dict[str, Any]:
    """Arguments of a pipeline's call from a JSON object, its denoising steps replaced if ``steps`` is given."""
    try:
        settings = {} if text is None else json.loads(text)
    except ValueError as error:
        raise DvdqError(operation, where="--settings", expected="JSON", got=str(error)) from error
    if not isinstance(settings, dict):
        raise DvdqError(operation, where="--settings", expected="an object", got=text)
    return settings if steps is None else settings | {"num_inference_steps": steps}


def set_threads(threads: int | None) -> None:
    """How many the CPU uses in this process; None leaves it to torch."""
    if threads is not None:
        torch.set_num_threads(threads)
