"""Generate with a peer: its own Python runs ``generate.py``, and what that says and writes comes back."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvdq_eval.environments import Script
from dvdq_eval.peers.records import Peer, python_of
from dvdq_eval.videos.making import Generated
from dvdq_reference.spec.errors import DvdqError

_SCRIPT = Path(__file__).with_name("generate.py")


@dataclass(frozen=True)
class VideoJob:
    """A video to make from a prompt and the noise of a seed; if there is a file at ``path``, it is taken for it."""

    prompt: str
    seed: int
    path: Path


@dataclass(frozen=True)
class PeerSummary:
    """What a peer did.

    Attributes:
        layers: how many linears it quantized.
        weights: how many weights these have.
        stored_bytes: all that stands for these weights: codes, scales, minima or norms, codebooks; no bias.
        quantize_seconds: from the loaded model to the quantized one.
        versions: of Python, the peer, torch, diffusers, transformers and numpy in its environment.
    """

    layers: int
    weights: int
    stored_bytes: int
    quantize_seconds: float
    versions: dict[str, str]

    @property
    def bits_per_weight(self) -> float | None:
        """``8 · stored_bytes / weights``; None in full precision, which quantizes none."""
        return 8 * self.stored_bytes / self.weights if self.weights else None


def run_peer(
    peer: Peer,
    pipeline_folder: Path,
    pipeline_class: str,
    settings: Mapping[str, Any],
    jobs: Sequence[VideoJob],
    quantized_names: Collection[str],
    on_video: Callable[[VideoJob, float | None], None],
    *,
    weight_only_names: Collection[str] = (),
    layers: Path | None = None,
    dtype: torch.dtype = torch.float32,
    timeout: float = 600.0,
) -> PeerSummary:
    """Quantize a pipeline's transformer with a peer and write a video for each job, on the CPU.

    A video is read with :func:`read_video`. A run that was cut short goes on where it was if
    it is called again; files of another peer or of other settings must not be at the jobs' paths.

    Args:
        peer: what to run, e.g. ``ORBITQUANT_W4A4``.
        pipeline_folder: of a diffusers text-to-video pipeline.
        pipeline_class: that reads it, e.g. ``"WanPipeline"``.
        settings: keyword arguments of the pipeline, as JSON has them.
        jobs: the videos.
        quantized_names: modules of the transformer that the peer quantizes, and no others; full precision ignores them.
        on_video: told of each video in its turn, with its seconds, or None if it was there already.
        weight_only_names: modules whose activations stay full.
        layers: the file that :attr:`Peer.give <dvdq_eval.peers.records.Peer.give>` wrote.
        dtype: of the pipeline.
        timeout: seconds that loading and quantizing may take, and each video.

    Raises:
        DvdqError: nothing to quantize, two jobs with one path, no environment (:func:`python_of`), a timeout, or a
            failure of the peer, with the last lines of its standard error.
    """
    if peer.options is not None and not quantized_names:
        raise DvdqError("run_peer", where=peer.label, expected="names of linears to quantize", got="none")
    if len({job.path.absolute() for job in jobs}) != len(jobs):
        raise DvdqError("run_peer", where=peer.label, expected="a path for each video", got="one twice")
    python = python_of(peer)
    for job in jobs:
        job.path.parent.mkdir(parents=True, exist_ok=True)
    given = {} if layers is None else {"layers": str(layers.absolute())}
    description = {
        "peer": peer.name,
        "options": None if peer.options is None else {**peer.options, **given},
        "quantize": list(quantized_names),
        "weight_only": list(weight_only_names),
        "pipeline_folder": str(pipeline_folder.absolute()),
        "pipeline_class": pipeline_class,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "settings": dict(settings),
        "videos": [{"prompt": job.prompt, "seed": job.seed, "path": str(job.path.absolute())} for job in jobs],
    }
    quantized: dict[str, Any] = {}
    done = 0
    script = Script(python, _SCRIPT, peer.environ)
    said = script.run(description, operation="run_peer", where=peer.label, expected="all videos", timeout=timeout)
    with closing(said):
        for line in said:
            if "quantized" in line:
                quantized = line["quantized"]
                continue
            done += 1
            on_video(jobs[line["video"]], line["seconds"])
    if not quantized or done != len(jobs):
        got = f"an end after {done}"
        raise DvdqError("run_peer", where=peer.label, expected=f"{len(jobs)} videos", got=got)
    return PeerSummary(
        layers=quantized["layers"],
        weights=quantized["weights"],
        stored_bytes=quantized["stored_bytes"],
        quantize_seconds=quantized["seconds"],
        versions=quantized["versions"],
    )


def read_video(path: Path) -> Generated:
    """The frames and latents in the ``.npz`` of a :class:`VideoJob <dvdq_eval.peers.run.VideoJob>`.

    Raises:
        DvdqError: there is no such file, or it is not one of these.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            video = Generated(arrays["frames"], arrays["latents"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DvdqError("read_video", where=str(path), expected="frames and latents", got=error) from error
    for name, values in (("frames", video.frames), ("latents", video.latents)):
        if values.dtype != np.float32 or values.ndim != 4:
            got = f"{values.dtype} {list(values.shape)}"
            raise DvdqError("read_video", where=f"{path}: {name}", expected="float32 with four axes", got=got)
    return video
