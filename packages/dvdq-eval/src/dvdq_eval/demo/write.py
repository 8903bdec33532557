"""The demo's folder: videos, latents, a contact sheet, ``results.json`` and ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dvdq_eval.contact_sheet import contact_sheet, side_by_side
from dvdq_eval.demo.page import demo_page
from dvdq_eval.demo.results import Results
from dvdq_eval.progress import Tell
from dvdq_eval.records import write_record, write_text
from dvdq_eval.report.parts import ReportVideo
from dvdq_eval.videos.method import Method
from dvdq_eval.videos.store import MethodFolder
from dvdq_eval.videos.study import Job
from dvdq_models.running.video import Frames, enlarge, write_mp4

CONTENTS = frozenset({"videos", "latents", "side-by-side.mp4", "contact-sheet.png", "results.json", "report.html"})
SCALE = 4
"""Pixels a side that a pixel of the model's small frames takes in a video file."""


def write_folder(
    folder: Path,
    results: Results,
    jobs: Sequence[Job],
    outcome: Mapping[Method, MethodFolder],
    tell: Tell,
) -> None:
    """Write everything into ``folder``, which is empty.

    ``videos/<method>/<prompt>.mp4`` and ``latents/<method>/<prompt>.npy`` are numbered from 1, so that two methods'
    folders can be compared file by file.
    """
    methods, prompts = list(outcome), [job.prompt for job in jobs]
    clips: dict[Method, list[Frames]] = {}
    total = len(methods) * len(prompts)
    shown: list[list[ReportVideo]] = [[] for _ in prompts]
    for column, method in enumerate(methods):
        for kind in ("videos", "latents"):
            (folder / kind / method.slug).mkdir(parents=True)
        clips[method] = [outcome[method].frames(job) for job in jobs]
        for row, (job, clip) in enumerate(zip(jobs, clips[method], strict=True)):
            file = folder / "videos" / method.slug / f"{row + 1}.mp4"
            frames = enlarge(clip, SCALE)
            write_mp4(file, frames)
            np.save(folder / "latents" / method.slug / f"{row + 1}.npy", outcome[method].latents(job))
            shown[row].append(ReportVideo(file.read_bytes(), frames[len(frames) // 2]))
            tell("Writing videos", column * len(prompts) + row + 1, total)
    tell("Writing the report", 0, 3)
    titles, grid = [method.title for method in methods], list(zip(*clips.values(), strict=True))
    contact_sheet(prompts, titles, grid).save(folder / "contact-sheet.png", optimize=True)
    tell("Writing the report", 1, 3)
    write_mp4(folder / "side-by-side.mp4", side_by_side(prompts, titles, grid))
    tell("Writing the report", 2, 3)
    write_record(folder / "results.json", results)
    write_text(folder / "report.html", demo_page(results, prompts, shown))
    tell("Writing the report", 3, 3)
