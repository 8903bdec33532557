"""What a store writes down: of a study, of each method, of each video and of what was measured of it."""

from __future__ import annotations

from typing import Any

import msgspec

from dvdq_eval.methods import title_of
from dvdq_models.switching.schedule import StepDecision


class StudyRecord(msgspec.Struct, frozen=True):
    """``study.json``: the pipeline's ``name``, its frames a second and the ``settings`` of its calls.

    The file also holds all else that videos depend on (:attr:`dvdq_eval.videos.study.Study.identity`), to be read by
    people.
    """

    name: str
    settings: dict[str, Any]
    fps: float | None = None


class MethodRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``method.json``: a method, and what it costs before its first video.

    Attributes:
        label, bits: for people.
        configuration: what decides its videos, by :meth:`dvdq_eval.methods.Method.to_dict`.
        bytes, bytes_before: of the transformer's checkpoint, and of the same in 16 bits.
        bits_per_weight: of the linears that are quantized, scales and all counted.
        prepare_seconds: of quantizing the weights; ``calibration_seconds``, of making the videos that a calibrated
            method has to see, come on top.
        versions: in a peer's environment.
        provenance: what :func:`dvdq_eval.machine.provenance` said.
    """

    label: str
    bits: str
    configuration: dict[str, Any]
    bytes: int
    bytes_before: int
    bits_per_weight: float
    prepare_seconds: float
    calibration_seconds: float | None
    versions: dict[str, str] = {}
    provenance: dict[str, Any] = {}

    @property
    def teacache(self) -> float | None:
        """The threshold below which steps are skipped."""
        found: float | None = self.configuration["teacache"]
        return found

    @property
    def title(self) -> str:
        """For people, e.g. ``DVD-Quant W4A6``."""
        return title_of(self.label, self.bits, self.teacache)

    @property
    def schedule(self) -> dict[str, Any] | None:
        """Of the recipe's widths, if it has one."""
        recipe = self.configuration["recipe"]
        return None if recipe is None else recipe["schedule"]

    @property
    def exact(self) -> bool:
        """Whether this is full precision, every step computed."""
        return all(value is None for value in self.configuration.values())


class VideoRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``<video>.json``: where a video comes from.

    Attributes:
        prompt, seed: what was asked for.
        seconds: wall time; None of a peer's video that was there already.
        pass_seconds: of the transformer's passes alone, on a CPU.
        average_bits, trace: of the activations, step by step, where a recipe quantizes them.
        reused: share of passes that TeaCache skipped.
        commit: of the project.
    """

    prompt: str
    seed: int
    seconds: float | None
    pass_seconds: float | None = None
    average_bits: float | None = None
    trace: tuple[StepDecision, ...] | None = None
    reused: float | None = None
    commit: str | None


class Failure(msgspec.Struct, frozen=True):
    """``<video>.failed.json``: why there is no video."""

    prompt: str
    seed: int
    error: str


class Quality(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``<video>.quality.json``: distances from full precision, and what the video shows.

    Full precision itself has no distances; ``psnr_db`` is also None for a video equal to its reference.

    Attributes:
        psnr_db, ssim, ms_ssim, vmaf: of the frames in 8 bits.
        flickering: VBench's; None of a single frame.
        latent_error: ``‖a - b‖ / ‖b‖`` of the final latents.
        words: which of the prompt's words a detector sees, for prompts of the moving shapes, and ``adherence``, the
            share of them.
    """

    psnr_db: float | None = None
    ssim: float | None = None
    ms_ssim: float | None = None
    vmaf: float | None = None
    flickering: float | None = None
    latent_error: float | None = None
    words: dict[str, bool] | None = None
    adherence: float | None = None

    @property
    def of_reference(self) -> bool:
        """Whether this is full precision's own."""
        return self.latent_error is None


class Trial(msgspec.Struct, frozen=True):
    """A δ and the average width that a switch then had."""

    delta: float
    average: float


class DeltaRecord(msgspec.Struct, frozen=True):
    """``deltas/<method>.json``: the δ that was chosen for a ``wanted`` average, among its trials."""

    delta: float
    wanted: float
    trials: tuple[Trial, ...]
