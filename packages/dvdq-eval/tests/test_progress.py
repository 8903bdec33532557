"""Progress: other libraries' bars are hidden while ours are shown, and are as they were afterwards."""

from __future__ import annotations

import diffusers
import pytest
import transformers

from dvdq_eval.progress import progress_bars

LIBRARIES = (diffusers.utils.logging, transformers.utils.logging)


def shown() -> list[bool]:
    return [library.is_progress_bar_enabled() for library in LIBRARIES]


def test_other_bars_come_back() -> None:
    before = shown()
    for library in LIBRARIES:
        library.enable_progress_bar()
    hidden: list[bool] = []

    def stop() -> None:
        with progress_bars():
            hidden.extend(shown())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert hidden == [False, False]
    assert shown() == [True, True]
    LIBRARIES[0].disable_progress_bar()
    with progress_bars():
        pass
    assert shown() == [False, True]
    for library, was in zip(LIBRARIES, before, strict=True):
        (library.enable_progress_bar if was else library.disable_progress_bar)()
