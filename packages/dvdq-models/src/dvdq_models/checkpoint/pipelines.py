"""Pipeline folders with a quantized transformer inside."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from dvdq_models.apply import use_backend
from dvdq_models.checkpoint.reading import check_stored
from dvdq_models.checkpoint.writing import save
from dvdq_models.diffusers_plugin.methods import check_dtype
from dvdq_models.families.pipelines import PipelineFolder
from dvdq_models.files.atomic import new_folder
from dvdq_models.files.text import one_line
from dvdq_models.switching.hook import follow
from dvdq_reference.spec.errors import DvdqError


def save_pipeline(source: str | Path, transformer: nn.Module, folder: str | Path) -> Path:
    """Write the pipeline folder ``source`` to ``folder`` with ``transformer`` in its transformer's place."""
    source = Path(source)
    with new_folder(Path(folder)) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True, ignore=_not_the_transformer(source))
        save(transformer, staging / "transformer")
    return Path(folder)


def load_pipeline(folder: str | Path, *, backend: str = "auto", **kwargs: Any) -> DiffusionPipeline:
    """The pipeline in ``folder``, its transformers quantized or not; ``kwargs`` go to diffusers' ``from_pretrained``.

    A ``dtype`` or ``torch_dtype`` among them, one for all or a dictionary of components, holds for what stayed in full
    precision of the transformers too; None is as stored. Quantized transformers run one bit schedule over each video
    (:func:`dvdq_models.switching.hook.follow`).

    Raises:
        DvdqError: no pipeline of an installed class, a file that is missing or altered, a dtype that is none or for a
            component that is not there.
    """
    folder = Path(folder)
    found = PipelineFolder.open("load", folder)
    # The class itself, because only it knows its own optional parts.
    pipeline_class = found.pipeline_class
    quantized = [name for name in found.quantized if name not in kwargs]
    _check_dtypes(kwargs, list(found.components))
    try:
        pipeline: DiffusionPipeline = pipeline_class.from_pretrained(str(folder), **kwargs)
    except DvdqError:
        raise
    except Exception as error:
        # diffusers opens the files before the quantizer is asked to look at them: say which of them is wrong.
        for name in quantized:
            check_stored(folder / name)
        if not isinstance(error, OSError | ValueError):
            raise
        expected = "a pipeline folder that is complete"
        raise DvdqError("load", where=str(folder), expected=expected, got=one_line(error)) from error
    for name in quantized:
        use_backend(getattr(pipeline, name), backend)
    if quantized:
        follow(pipeline)
    return pipeline


def _check_dtypes(kwargs: Mapping[str, Any], components: list[str]) -> None:
    given = [kwargs[name] for name in ("dtype", "torch_dtype") if kwargs.get(name) is not None]
    if len(given) > 1:
        raise DvdqError("load", where="torch_dtype", expected="dtype or torch_dtype", got="both")
    for dtype in given:
        by_component = dtype if isinstance(dtype, Mapping) else {"default": dtype}
        for name, wanted in by_component.items():
            if name not in (*components, "default"):
                known = f"default, {', '.join(components)}"
                raise DvdqError("load", where="dtype", expected=f"components ({known})", got=repr(name))
            check_dtype(f"load: {name}", wanted)


def _not_the_transformer(source: Path) -> Any:
    def ignore(directory: str, names: list[str]) -> list[str]:
        return ["transformer"] if Path(directory) == source and "transformer" in names else []

    return ignore
