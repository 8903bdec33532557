"""The report's page: whole, self-contained, and as accessible as a parser can tell."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from dvdq_eval.report import ReportVideo, render
from dvdq_eval.report.svg import ticks

VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Elements with their attributes; an element closed out of order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(outcome: Any) -> str:
    poster = np.zeros((4, 4, 3), dtype=np.uint8)
    videos = [[ReportVideo(f"{p} {m.slug}".encode(), poster) for m in outcome.videos] for p in outcome.prompts]
    return render(outcome.results, outcome.prompts, [m.label for m in outcome.videos], videos)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_every_element_is_closed(page: Page) -> None:
    assert page.open == []


def test_nothing_is_fetched_from_anywhere(page: Page, text: str) -> None:
    addresses = [a[key] for _, a in page.elements for key in ("src", "href", "poster") if a.get(key) is not None]
    assert addresses
    assert all(address is not None and address.startswith(("data:", "#")) for address in addresses)
    assert re.findall(r"url\(|@import|https?://|fetch\(", text) == []


def test_each_video_stands_in_its_place(page: Page, outcome: Any) -> None:
    wanted = [(f"{p} {m.slug}", f"{p}, {m.label}") for p in outcome.prompts for m in outcome.videos]
    shown = [
        (base64.b64decode(str(video["src"]).partition(",")[2]).decode(), video["aria-label"])
        for video in page.all("video")
    ]
    assert shown == wanted


def test_the_page_can_be_found_by_those_who_do_not_see_it(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identities) == len(set(identities))
    assert {str(a["href"])[1:] for a in page.all("a")} <= set(identities)
    assert all("scope" in header for header in page.all("th"))
    charts = page.all("svg")
    assert charts
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert [tag for tag, _ in page.elements if tag == "h1"] == ["h1"]


def test_text_is_escaped(text: str) -> None:
    assert "a &lt;processor&gt;" in text
    assert "<processor>" not in text


def test_charts_are_well_formed(text: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 2 + 1 + 2
    for chart in charts:
        for element in ET.fromstring(chart).iter():
            for value in element.attrib.values():
                assert "nan" not in value.split()
                assert "inf" not in value.split()


def test_the_table_holds_the_figures(text: str, outcome: Any) -> None:
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>")[:-1]]
    assert [row[0] for row in rows] == [method.label for method in outcome.videos]
    assert rows[0][2:7] == ["1.00×", "–", "–", "–", "–"]
    assert rows[1][2:7] == ["3.41×", "6.00", "28.0", "0.950", "0.100"]
    assert rows[-1][-1].startswith("1<")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.013), (0.0, 730.0), (-2.0, 2.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    values = ticks(low, high, 4)
    assert 2 <= len(values) <= 6
    assert low <= min(values)
    assert max(values) <= high
    assert len({f"{value:.1e}" for value in values}) == len(values)
