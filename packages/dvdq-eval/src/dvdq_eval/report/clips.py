"""The videos that a page shows: which methods, which prompts, at what size."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dvdq_eval.methods import BASELINES
from dvdq_eval.progress import Tell
from dvdq_eval.report.material import FoundMethod, FoundStudy, Material
from dvdq_eval.report.parts import Clip, ReportVideo, Section, Text, Wall
from dvdq_eval.tables.catalogue import OURS
from dvdq_eval.videos.records import Quality
from dvdq_models.running.video import FPS, Frames, enlarge, read_mp4, write_mp4

UNASKED = 8
"""Methods that are shown unasked: full precision, ours at each width, the paper's baselines at four bits."""
SMALL, LARGE = 256, 512
"""Pixels of the longer side: a video of fewer is enlarged, one of more reduced, by a whole factor."""


def choose_methods(study: FoundStudy, wanted: Sequence[str]) -> list[FoundMethod]:
    """The methods of these titles or labels in the tables' order; unasked, the :data:`UNASKED` that say most."""
    there = [method for method in study.methods if method.videos]
    if wanted:
        return [method for method in there if {method.about.title, method.about.label} & set(wanted)]
    return sorted(there, key=_importance)[:UNASKED]


def _importance(method: FoundMethod) -> int:
    """Its rank: full precision, ours, the paper's baselines at four bits, all others."""
    if method.about.exact:
        return 0
    if method.about.label == OURS and method.about.teacache is None:
        return 1
    return 2 if method.about.label in BASELINES and method.about.bits == "W4A4" else 3


def make_wall(study: FoundStudy, methods: Sequence[FoundMethod], prompts: int, tell: Tell) -> Wall:
    """Videos of ``prompts`` prompts from all over the study, those of one prompt and noise side by side."""
    there = [job for job in study.jobs if any(job in method.videos for method in methods)]
    jobs = [there[number * len(there) // prompts] for number in range(prompts)] if prompts < len(there) else there
    what, rows = f"Videos of {study.about.name}", []
    for row, job in enumerate(jobs):
        clips = []
        for column, method in enumerate(methods):
            tell(what, row * len(methods) + column, len(jobs) * len(methods))
            clips.append(_clip(method, job, study.about.fps or FPS))
        rows.append(clips)
    tell(what, len(jobs) * len(methods), len(jobs) * len(methods))
    prompts_of = {job: video.record.prompt for method in methods for job, video in method.videos.items()}
    return Wall([prompts_of[job] for job in jobs], rows, study.about.fps or FPS)


def _clip(method: FoundMethod, job: str, fps: float) -> Clip:
    if job not in method.videos:
        failure = method.failures.get(job)
        return Clip(
            method.about.title, None, [("", "not made") if failure is None else ("miss", f"failed: {failure.error}")]
        )
    video = method.videos[job]
    lines = [("", "reference")] if method.about.exact else []
    return Clip(
        method.about.title, to_video(read_mp4(video.path), fps), [*lines, *quality_lines(video.quality or Quality())]
    )


def quality_lines(quality: Quality) -> list[tuple[str, str]]:
    """What is said below a video: its PSNR, and which words of its prompt a detector does not see, if any looked."""
    lines = []
    if not quality.of_reference:
        lines.append(("", "equal to the reference" if quality.psnr_db is None else f"{quality.psnr_db:.1f} dB"))
    if quality.words is not None:
        missing = [word for word, seen in quality.words.items() if not seen]
        words = f"not seen: {', '.join(missing)}" if missing else f"all {len(quality.words)} words seen"
        lines.append(("miss" if missing else "hit", words))
    return lines


def to_video(frames: Frames, fps: float = FPS) -> ReportVideo:
    """Frames as an mp4 file for the page."""
    frames = _resized(frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_mp4(path, frames, fps=fps)
        return ReportVideo(path.read_bytes(), frames[len(frames) // 2])


def _resized(frames: Frames) -> Frames:
    """Enlarged by whole pixels, or each square of pixels as its mean; an even height and width."""
    longer = max(frames.shape[1:3])
    if longer < SMALL:
        return enlarge(frames, 2 * max(1, SMALL // (2 * longer)))
    factor = -(-longer // LARGE)
    height, width = (size // (2 * factor) * 2 for size in frames.shape[1:3])
    cut = frames[:, : height * factor, : width * factor]
    squares = cut.reshape(len(cut), height, factor, width, factor, 3)
    # One at a time: the means of a long video in 64 bits would not fit.
    return np.stack([frame.mean(axis=(1, 3)).round().astype(np.uint8) for frame in squares])


def videos(material: Material, wall: Wall | None) -> Section | None:
    """The wall of videos, with how they were made."""
    if material.study is None or wall is None:
        return None
    settings = ", ".join(f"{name} {value}" for name, value in (material.settings or {}).items() if value != "")
    text = (
        "Every method from the same prompts and the same noise. All videos share one clock; two methods of one prompt "
        "can be laid over one another, and the divider between them dragged or moved with the arrow keys."
    )
    note = f"Made with {settings}. Shown as H.264, measured before any lossy codec."
    return Section("videos", "Videos side by side", [Text(text), wall, Text(note, "note")], material.study.sources)
