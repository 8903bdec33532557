"""The videos that VBench is asked about, from what a command was given."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvdq_eval.experiments.configuration import Configuration
from dvdq_eval.experiments.opening import open_study, parse_methods, read_settings
from dvdq_eval.experiments.prepare import prepared_files, tuned
from dvdq_eval.experiments.store import MethodFolder, Store
from dvdq_eval.experiments.study import Study
from dvdq_eval.vbench.dimensions import Dimension, chosen
from dvdq_eval.vbench.environment import vbench_python
from dvdq_eval.vbench.installed import Installed
from dvdq_eval.vbench.prompts import SAMPLES, StandardStudy
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.running.placement import check_offload
from dvdq_models.running.prompts import read_prompts

STANDARD = "standard"
BUNDLED_VIDEOS = 64


@dataclass(frozen=True)
class Asked:
    """Which videos of which methods, and what VBench is to say of them."""

    study: Study
    store: Store
    methods: tuple[Configuration, ...]
    dimensions: tuple[Dimension, ...]

    def folder(self, configuration: Configuration) -> MethodFolder | None:
        """Where a method's videos are; None if none were made yet."""
        if not all(prepared_files(self.store, configuration).values()):
            return None
        folder = self.store.method(tuned(self.study, self.store, configuration, lambda *_: None))
        return None if folder.about is None else folder


def open_asked(operation: str, given: Mapping[str, Any]) -> Asked:
    """What the options of :mod:`dvdq_eval.vbench.options` say, by their names."""
    check_offload(operation, given["device"], given["offload"])
    prompts, standard = given["prompts"], given["prompts"] == STANDARD
    dimensions = chosen(operation, tuple(given["dimension"] or ()), standard=standard)
    if standard:
        study: Study = _standard(operation, given, dimensions)
    else:
        study = _own(operation, given, None if prompts is None else Path(prompts))
    return Asked(study, Store(given["store"], study), parse_methods(operation, given["method"] or ()), dimensions)


def _own(operation: str, given: Mapping[str, Any], prompts: Path | None) -> Study:
    """Videos of a bundled pipeline's own prompts, or of a file of them."""
    bundled, videos = given["pipeline"] in BUNDLED, given["videos"]
    return open_study(
        operation,
        given["pipeline"],
        videos=(BUNDLED_VIDEOS if bundled else sys.maxsize) if videos is None else videos,
        samples=given["samples"] or 1,
        steps=given["steps"],
        prompts=prompts,
        preparing=given["preparing"],
        settings=given["settings"],
        device=given["device"],
        offload=given["offload"],
    )


def _standard(operation: str, given: Mapping[str, Any], dimensions: tuple[Dimension, ...]) -> StandardStudy:
    """Videos of VBench's own prompts."""
    prompts = Installed(vbench_python()).prompts
    texts = tuple(prompt.text for prompt in prompts)
    if given["pipeline"] in BUNDLED:
        base = _own(operation, {**given, "videos": None}, None)
    else:
        preparing = () if given["preparing"] is None else read_prompts(operation, given["preparing"])
        settings = read_settings(operation, given["settings"], given["steps"])
        base = Study.of(Path(given["pipeline"]), texts, preparing, settings, given["device"])
    kept = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    changed = {"prompts": texts, "samples": given["samples"] or SAMPLES}
    return StandardStudy(**{**kept, **changed}, standard=prompts, dimensions=dimensions, first=given["videos"])
