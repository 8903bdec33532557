"""What all methods of an experiment share: a pipeline, prompts, noise and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import dvdq_eval
from dvdq_eval.digests import digests
from dvdq_eval.machine import let_go
from dvdq_models.checkpoint.pipelines import load_pipeline
from dvdq_models.families.pipelines import INDEX, PipelineFolder
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.moving_shapes.clips import Scene, all_scenes, split_scenes
from dvdq_models.running.placement import Offload, place
from dvdq_models.running.video import FPS
from dvdq_reference.spec.errors import DvdqError

OPERATION = "experiment"
CALIBRATION_VIDEOS, TUNING_VIDEOS = 8, 4
"""Videos of training prompts that SmoothQuant and ViDiT-Q are calibrated on, and that δ is tuned on."""


@dataclass(frozen=True)
class Job:
    """One video to make: its place in the study, what it should show and the seed of its noise."""

    number: int
    prompt: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files: another prompt or seed has another."""
        return f"{self.seed:04d}-{hashlib.sha256(self.prompt.encode()).hexdigest()[:8]}"

    def noise(self) -> torch.Generator:
        """The generator that a pipeline draws the first latents from."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def scene(self) -> Scene | None:
        """What the detector looks for, if the prompt is one of the moving shapes'."""
        return _SCENES.get(self.prompt)


_SCENES = {scene.prompt: scene for scene in all_scenes()}


@dataclass(frozen=True)
class Study:
    """A pipeline's folder and how it is called, e.g. ``Study.bundled("wan")``.

    Attributes:
        name: of the pipeline, for people.
        folder: as diffusers reads it.
        settings: keyword arguments of a call.
        prompts: of the videos that are measured; video i starts from the noise of seed ``first_seed + i``.
        preparing: prompts that calibration and the choice of δ may see, none of them among ``prompts``.
        teacache: name of the coefficients of TeaCache; None are those of the architecture.
        device: that runs it; the dtype is float32 on a CPU and bfloat16 elsewhere.
        samples: videos of each prompt, one after another, each from noise of its own.
        offload: what waits in the computer's memory, for models that do not fit into the device's.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    prompts: tuple[str, ...]
    preparing: tuple[str, ...]
    teacache: str | None = None
    device: str = "cpu"
    samples: int = 1
    offload: Offload = Offload.NONE
    first_seed: int = 0

    @classmethod
    def bundled(
        cls, name: str, videos: int = 64, steps: int | None = None, device: str = "cpu", samples: int = 1
    ) -> Study:
        """One of the bundled pipelines on prompts that it never saw; it is prepared on some that it was trained on."""
        if name not in BUNDLED:
            raise DvdqError(OPERATION, where="pipeline", expected=f"a folder or one of {', '.join(BUNDLED)}", got=name)
        training, unseen = split_scenes()
        if not 2 <= videos <= len(unseen):
            raise DvdqError(OPERATION, where="videos", expected=f"2 to {len(unseen)}", got=videos)
        bundled = BUNDLED[name]
        bundled.prepare()
        settings = dict(bundled.generation)
        if steps is not None:
            settings["num_inference_steps"] = steps
        every = len(training) // CALIBRATION_VIDEOS
        return cls(
            f"moving shapes, {name}",
            bundled.folder,
            settings,
            tuple(scene.prompt for scene in unseen[:videos]),
            tuple(scene.prompt for scene in training[::every][:CALIBRATION_VIDEOS]),
            f"moving-shapes-{name.removesuffix('-outliers')}",
            device,
            samples,
        )

    @classmethod
    def of(
        cls,
        folder: Path,
        prompts: Sequence[str],
        preparing: Sequence[str],
        settings: Mapping[str, Any],
        device: str = "cpu",
        samples: int = 1,
    ) -> Study:
        """Any pipeline's folder on prompts of one's own."""
        if len(prompts) < 2:
            raise DvdqError(OPERATION, where="prompts", expected="two or more", got=len(prompts))
        if both := set(prompts) & set(preparing):
            expected = "prompts that are not measured"
            raise DvdqError(OPERATION, where="preparing", expected=expected, got=repr(min(both)))
        folder = folder.resolve()
        return cls(folder.name, folder, dict(settings), tuple(prompts), tuple(preparing), None, device, samples)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The videos to make of every method."""
        asked = [prompt for prompt in self.prompts for _ in range(self.samples)]
        return tuple(Job(number, prompt, self.first_seed + number) for number, prompt in enumerate(asked))

    @property
    def preparing_jobs(self) -> tuple[Job, ...]:
        """Videos of other prompts and other noise, to prepare a method with."""
        first = 1_000_000
        return tuple(Job(number, prompt, first + number) for number, prompt in enumerate(self.preparing))

    def open(self) -> Any:
        """The pipeline in full precision where its weights are quantized, without diffusers' progress bar.

        That is on its device, or in the computer's memory if it does not fit there. What nobody holds any more of an
        earlier one leaves the device first.
        """
        let_go(torch.device(self.device))
        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        pipeline: Any = load_pipeline(self.folder, dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        if self.offload is Offload.NONE:
            self.place(pipeline)
        return pipeline

    def place(self, pipeline: Any) -> None:
        """Put what :meth:`open` gave where it runs."""
        place(pipeline, self.device, self.offload)

    def load(self) -> Any:
        """The pipeline in full precision, ready to run."""
        pipeline = self.open()
        self.place(pipeline)
        return pipeline

    @property
    def fps(self) -> int:
        """Frames a second that its videos are made for."""
        bundled = any(self.folder == bundled.folder for bundled in BUNDLED.values())
        return FPS if bundled else PipelineFolder.open(OPERATION, self.folder).fps

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """What the pipeline is read from: its index, and all that its components' folders hold."""
        parts = PipelineFolder.open(OPERATION, self.folder).components
        held = [path for part in parts for path in (self.folder / part).rglob("*") if not path.name.startswith(".")]
        return tuple(sorted(path for path in [self.folder / INDEX, *held] if path.is_file()))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that a video depends on besides its method, prompt and seed, JSON-ready."""
        names = [path.relative_to(self.folder).as_posix() for path in self.files]
        versions = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")}
        return {
            "files": dict(zip(names, digests(self.files), strict=True)),
            "settings": dict(self.settings),
            "preparing": list(self.preparing),
            "teacache": self.teacache,
            "device": self.device,
            # Weights that are quantized elsewhere may differ in a rounding.
            **({} if self.offload is Offload.NONE else {"offload": self.offload.value}),
            "versions": versions | {"dvdq": dvdq_eval.__version__},
        }

    @property
    def key(self) -> str:
        """A name for a folder, from :attr:`identity`."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
