"""The demo's folder: videos, latents, a contact sheet, ``results.json`` and ``report.html``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dvdq_eval.contact_sheet import contact_sheet, side_by_side
from dvdq_eval.demo.methods import Method
from dvdq_eval.demo.page import demo_page
from dvdq_eval.demo.results import Results
from dvdq_eval.generation import Generated
from dvdq_eval.report.parts import ReportVideo
from dvdq_models.running.video import enlarge, to_bytes, write_mp4

CONTENTS = frozenset({"videos", "latents", "side-by-side.mp4", "contact-sheet.png", "results.json", "report.html"})
SCALE = 4
"""Pixels a side that a pixel of the model's small frames takes in a video file."""


def write_folder(
    folder: Path,
    results: Results,
    prompts: Sequence[str],
    outcome: Mapping[Method, Sequence[Generated]],
    tell: Callable[[str, int, int], None],
) -> None:
    """Write everything into ``folder``, which is empty.

    ``videos/<method>/<prompt>.mp4`` and ``latents/<method>/<prompt>.npy`` are numbered from 1, so that two methods'
    folders can be compared file by file.
    """
    methods = list(outcome)
    total = len(methods) * len(prompts)
    shown: list[list[ReportVideo]] = [[] for _ in prompts]
    for column, method in enumerate(methods):
        for kind in ("videos", "latents"):
            (folder / kind / method.slug).mkdir(parents=True)
        for row, generated in enumerate(outcome[method]):
            file = folder / "videos" / method.slug / f"{row + 1}.mp4"
            frames = enlarge(to_bytes(generated.frames), SCALE)
            write_mp4(file, frames)
            np.save(folder / "latents" / method.slug / f"{row + 1}.npy", generated.latents)
            shown[row].append(ReportVideo(file.read_bytes(), frames[len(frames) // 2]))
            tell("Writing videos", column * len(prompts) + row + 1, total)
    tell("Writing the report", 0, 3)
    labels = [method.label for method in methods]
    clips = [[to_bytes(outcome[method][row].frames) for method in methods] for row in range(len(prompts))]
    contact_sheet(prompts, labels, clips).save(folder / "contact-sheet.png", optimize=True)
    tell("Writing the report", 1, 3)
    write_mp4(folder / "side-by-side.mp4", side_by_side(prompts, labels, clips))
    tell("Writing the report", 2, 3)
    (folder / "results.json").write_text(results.to_json(), encoding="utf-8")
    (folder / "report.html").write_text(demo_page(results, prompts, shown), encoding="utf-8")
    tell("Writing the report", 3, 3)
