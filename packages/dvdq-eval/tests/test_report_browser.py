"""The page as a reader uses it, in a headless Chromium: playback, the divider, sorting, dark, small, offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dvdq_eval.demo.page import demo_page
from dvdq_eval.demo.run import METHODS
from dvdq_eval.report.clips import to_video
from dvdq_models.running.video import FPS

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name))), None)
PATIENCE = 20.0
"""Seconds that a page may take for anything."""
PLUMBING = """
import fcntl, os, sys
told, said = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(told, 3)
os.dup2(said, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""A browser reads commands from the file of number 3 and answers into that of number 4."""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"none of {', '.join(NAMES)} is installed")


class Browser:
    """A browser that is told what to do over a pipe, in the DevTools protocol: JSON that ends with a zero byte."""

    def __init__(self, program: str, profile: str) -> None:
        told, tell = os.pipe()
        hear, said = os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}")
        command = [program, *flags, "--remote-debugging-pipe", "about:blank"]
        plumbing = [sys.executable, "-c", PLUMBING, str(told), str(said)]
        self.process = subprocess.Popen([*plumbing, *command], pass_fds=(told, said), stderr=subprocess.DEVNULL)
        os.close(told)
        os.close(said)
        self.tell, self.hear = os.fdopen(tell, "wb", buffering=0), os.fdopen(hear, "rb", buffering=0)
        self.rest, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        pages = [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.send("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self.session = attached["sessionId"]
        self.send("Network.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": self.number, "method": method, "params": params, **session}
        self.tell.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = self.hear.read(1 << 20)
            assert more, "the browser has gone"
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def open(self, path: Path, *, width: int = 1280, scheme: str = "light", motion: str = "reduce") -> None:
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete' && document.querySelector('output').textContent !== ''")

    def js(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.js(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.tell.close()
        self.hear.close()

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def drag(self, selector: str, start: float, end: float) -> None:
        """With the mouse along an element, from one share of its width to another."""
        box = self.js(
            f"(() => {{ const b = {selector}.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] }})()"
        )
        x, y, width, height = box
        for kind, at in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            place = {"x": x + at * width, "y": y + height / 2}
            self.send("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **place)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driven = Browser(PROGRAM, profile)
        try:
            if not driven.js("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.640028\"')"):
                pytest.skip("this browser plays no H.264")
            yield driven
        finally:
            driven.close()


@pytest.fixture(scope="module")
def page(outcome: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = [[to_video(videos[row]) for videos in outcome.videos.values()] for row in range(len(outcome.prompts))]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(demo_page(outcome.results, outcome.prompts, clips), encoding="utf-8")
    return path


Open = Callable[..., Browser]


@pytest.fixture
def opened(browser: Browser, page: Path) -> Open:
    def open_page(**how: Any) -> Browser:
        browser.open(page, **how)
        return browser

    return open_page


FRAMES_SHOWN = f"[...document.querySelectorAll('video')].map((v) => Math.floor(v.currentTime * {FPS}))"


def test_nothing_but_the_file_is_asked_for(opened: Open) -> None:
    browser = opened()
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_a_step_moves_every_video_by_one_frame(opened: Open) -> None:
    browser = opened()
    still = "[...document.querySelectorAll('video')].every((v) => v.paused && !v.seeking && v.readyState >= 2)"
    browser.until(still)
    first = browser.js(FRAMES_SHOWN)
    assert len(first) == 2 * len(METHODS) + 2
    assert len(set(first)) == 1
    browser.js("document.querySelector('.forward').focus()")
    browser.press("Enter", 13, "\r")
    browser.until(still)
    assert browser.js(FRAMES_SHOWN) == [frame + 1 for frame in first]
    browser.js("document.querySelector('.back').click(); document.querySelector('.back').click()")
    browser.until(still)
    assert browser.js(FRAMES_SHOWN) == [frame - 1 for frame in first]
    assert browser.js("document.querySelector('output').textContent") == f"{first[0]} of 17"


def test_videos_play_in_step_and_begin_again(opened: Open) -> None:
    browser = opened(motion="no-preference")
    browser.until("[...document.querySelectorAll('video')].every((v) => !v.paused)")
    browser.js(
        "(() => { const s = document.querySelector('.speed'); s.value = 2; s.dispatchEvent(new Event('change')) })()"
    )
    assert set(browser.js("[...document.querySelectorAll('video')].map((v) => v.playbackRate)")) == {2}
    seen = []
    end = time.monotonic() + PATIENCE
    while not any(later < earlier for earlier, later in pairwise(seen)):
        assert time.monotonic() < end, seen
        seen.append(browser.js("document.querySelector('.clips video').currentTime"))
        time.sleep(0.05)
    # Each is held to within a frame of the first, at whose next look another may be one further.
    browser.until(f"""(() => {{
        const times = [...document.querySelectorAll('video')].map((v) => v.currentTime);
        return Math.min(...times) > 0 && Math.max(...times) - Math.min(...times) < 2 / {FPS};
    }})()""")
    browser.js("document.querySelector('.play').click()")
    browser.until("[...document.querySelectorAll('video')].every((v) => v.paused)")
    assert browser.js("document.querySelector('.play').textContent") == "Play"


def test_who_wants_less_motion_gets_none_unasked(opened: Open) -> None:
    browser = opened(motion="reduce")
    assert browser.js("[...document.querySelectorAll('video')].every((v) => v.paused)")


def test_the_divider_follows_keys_and_mouse(opened: Open) -> None:
    browser = opened()
    at = "document.querySelector('.stage').style.getPropertyValue('--at')"
    assert browser.js(at) == "50%"
    browser.js("document.querySelector('.stage input').focus()")
    for _ in range(3):
        browser.press("ArrowLeft", 37)
    assert browser.js(at) == "47%"
    browser.press("Home", 36)
    assert browser.js(at) == "0%"
    browser.drag("document.querySelector('.stage')", 0.3, 0.8)
    assert 76 <= float(browser.js(at).removesuffix("%")) <= 84
    said = browser.js("document.querySelector('.stage input').getAttribute('aria-valuetext')")
    assert "Full precision" in said


def test_the_divider_shows_what_was_chosen(opened: Open) -> None:
    browser = opened()
    for select, choice in (("of", 1), ("left", 2), ("right", 3)):
        browser.js(
            f"(() => {{ const s = document.querySelector('.choices .{select}'); s.selectedIndex = {choice};"
            "s.dispatchEvent(new Event('change')) })()"
        )
    assert browser.js("""(() => {
        const row = document.querySelectorAll('.clips')[1].querySelectorAll('video');
        const shown = document.querySelectorAll('.stage video');
        return shown[0].src === row[2].src && shown[1].src === row[3].src;
    })()""")
    assert browser.js("[...document.querySelectorAll('.tag')].map((t) => t.textContent)") == [
        METHODS[2].title,
        METHODS[3].title,
    ]


COLUMN = "[...document.querySelectorAll('tbody tr')].map((row) => row.cells[{}].dataset.value ?? null)"
HEADER = "document.querySelectorAll('thead tr:last-child th')[{}]"


@pytest.mark.parametrize(("column", "first"), [(6, "descending"), (8, "ascending")])
def test_a_column_sorts_both_ways_what_is_missing_last(opened: Open, column: int, first: str) -> None:
    browser = opened()
    browser.js(f"{HEADER.format(column)}.querySelector('button').focus()")
    orders = [first, "ascending" if first == "descending" else "descending"]
    for order in orders:
        browser.press("Enter", 13, "\r")
        *values, last = browser.js(COLUMN.format(column))
        assert last is None
        assert [float(v) for v in values] == sorted(map(float, values), reverse=order == "descending")
        assert browser.js(f"{HEADER.format(column)}.getAttribute('aria-sort')") == order
    browser.js(f"{HEADER.format(0)}.querySelector('button').click()")
    assert browser.js(f"{HEADER.format(column)}.getAttribute('aria-sort')") == "none"
    assert browser.js(COLUMN.format(0)) == [str(place) for place in range(len(METHODS))]


def test_dark_is_dark(opened: Open) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    shades = {scheme: opened(scheme=scheme).js(background) for scheme in ("light", "dark")}
    levels = {scheme: [int(n) for n in shade[4:-1].split(",")] for scheme, shade in shades.items()}
    assert max(levels["dark"]) < 64
    assert min(levels["light"]) > 192


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_as_wide_as_the_screen(opened: Open, width: int) -> None:
    browser = opened(width=width)
    assert browser.js("document.documentElement.scrollWidth === document.documentElement.clientWidth")


def test_every_control_shows_its_focus(opened: Open) -> None:
    browser = opened()
    controls = browser.js("document.querySelectorAll('a, button, select, input, summary, [tabindex]').length")
    reached = 0
    for _ in range(controls):
        browser.press("Tab", 9)
        outlined = browser.js("""(() => {
            const e = document.activeElement;
            const shown = e.closest('.stage') ?? e;
            return e === document.body ? null : getComputedStyle(shown).outlineStyle;
        })()""")
        if outlined is None:
            break
        assert outlined != "none"
        reached += 1
    assert reached == controls
