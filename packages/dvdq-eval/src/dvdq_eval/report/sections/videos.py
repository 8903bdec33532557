"""The videos of a study, in step."""

from __future__ import annotations

from dvdq_eval.report.material import Material
from dvdq_eval.report.parts import Section, Text, Wall


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
