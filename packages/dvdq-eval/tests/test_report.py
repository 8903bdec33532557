"""The pages as text: whole, self-contained, as accessible as a parser can tell, and every figure that of its source."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dvdq_eval.charts.plot import ticks
from dvdq_eval.cli import app
from dvdq_eval.demo.page import demo_page
from dvdq_eval.demo.run import METHODS as DEMO
from dvdq_eval.internals import LayerError
from dvdq_eval.intervals import interval
from dvdq_eval.latency.results import Latency, LayerTime, MethodTime, Parts, Timing, VideoTime
from dvdq_eval.memory.results import Memory, MethodMemory, WeightBytes
from dvdq_eval.methods import FULL_PRECISION, Method
from dvdq_eval.records import write_record
from dvdq_eval.report.clips import LARGE, UNASKED, choose_methods, to_video
from dvdq_eval.report.material import read_study
from dvdq_eval.report.parts import ReportVideo
from dvdq_eval.report.write import write_report
from dvdq_eval.tables.cost import Cost
from dvdq_eval.tables.rows import Row, Table
from dvdq_eval.vbench.scoring import Score
from dvdq_eval.videos.records import MethodRecord, Quality, VideoRecord
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Study
from dvdq_models.running.video import read_mp4
from dvdq_models.switching.schedule import StepDecision
from dvdq_reference.spec.errors import DvdqError

VOID = {"meta", "link", "input", "br", "img"}
SIZE, FRAMES, STEPS = 16, 3, 6
METHODS = (
    FULL_PRECISION,
    Method.named("DVD-Quant", "dvd-quant", "W4A6").with_delta(0.25),
    Method.named("MinMax", "minmax", "W4A4"),
)
PROVENANCE = {
    "dvdq": "0.1.0",
    "commit": "0123456789abcdef",
    "date": "2026-01-02T03:04:05+00:00",
    "python": "3.11.0",
    "platform": "Linux",
    "processor": "a <processor>",
    "cores": 2,
    "threads": 1,
    "device": "cpu",
    "libraries": {"torch": "2.13.0"},
}


class Page(HTMLParser):
    """Elements with their attributes, and tables as rows of (text, ``data-value``); an open element is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self._caption: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "caption":
            self._caption = ""
        if tag == "tr" and "tbody" in self.open:
            self.tables[self._caption or ""].append([])
        if tag in ("td", "th") and "tbody" in self.open:
            self.tables[self._caption or ""][-1].append(("", dict(attrs).get("data-value")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "caption":
            self.tables[self._caption or ""] = []

    def handle_data(self, data: str) -> None:
        if "caption" in self.open:
            self._caption = (self._caption or "") + data
        elif "tbody" in self.open and ("td" in self.open or "th" in self.open):
            text, value = self.tables[self._caption or ""][-1][-1]
            self.tables[self._caption or ""][-1][-1] = (text + data, value)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, caption: str) -> list[list[str | None]]:
        """The ``data-value`` of every cell of a table."""
        return [[value for _, value in row] for row in self.tables[caption]]


def fill_store(folder: Path) -> Study:
    """Three methods on three prompts; one generation of the last failed."""
    study = Study.bundled("wan", videos=3, steps=STEPS)
    store = Store(folder, study)
    rng = np.random.default_rng(0)
    for number, method_ in enumerate(METHODS):
        method = store.method(method_)
        method.describe(
            MethodRecord(
                label=method_.label,
                bits=method_.bits,
                configuration=method_.to_dict(),
                bytes=12_000_000 if number == 0 else 4_000_000 + number,
                bytes_before=12_000_000,
                bits_per_weight=16.0 if number == 0 else 4.25,
                prepare_seconds=0.5,
                calibration_seconds=None,
                provenance=PROVENANCE,
            )
        )
        for job in study.jobs:
            if number == 2 and job.number == 1:
                method.fail(job, "RuntimeError: out of <memory>")
                continue
            steps = [
                StepDecision(i, 8 if i < 2 or i == job.number + 3 else 4, 0.1 * i, "a reason") for i in range(STEPS)
            ]
            traced = {"average_bits": 5.5, "trace": tuple(steps)} if number else {}
            seconds = 1.5 + number + job.number
            record = VideoRecord(prompt=job.prompt, seed=job.seed, seconds=seconds, commit="abc", **traced)
            frames = rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
            method.keep(job, frames, np.zeros((1, 1, 2, 2), np.float32), record)
            method.keep_quality(job, quality_of(number, job.number))
    return study


def quality_of(method: int, video: int) -> Quality:
    words = {"colour": True, "shape": method < 2}
    steady = 0.98 + 0.001 * video
    if method == 0:
        return Quality(flickering=steady, words=words, adherence=1.0)
    return Quality(
        flickering=steady,
        words=words,
        adherence=0.5,
        psnr_db=30.0 + video - method,
        ssim=0.9,
        latent_error=0.1 * (1 + video),
    )


def write_files(folder: Path) -> None:
    """What the other commands write of the same pipeline."""
    folder.mkdir()
    pipeline = {"pipeline": "moving shapes, wan", "provenance": PROVENANCE}
    settings = dict(Study.bundled("wan", videos=3, steps=STEPS).settings)
    table = Table("table-1", "Methods", "A claim.", "moving shapes, wan", 3, settings, ROWS, PROVENANCE)
    sweep = dataclasses.replace(table, name="figure-6", title="The threshold δ", rows=SWEPT)
    for made in (table, sweep):
        write_record(folder / f"{made.name}.json", made)
    cost = dataclasses.asdict(Cost("DVD-Quant W4A4", 4.0, 4_000_000, 3.0, 1.25, 1.0, 1.5, 5, 1.75))
    write_record(folder / "table-5.json", {**pipeline, "settings": settings, "rows": [cost]})
    layers = [dataclasses.asdict(LayerError(f"blocks.{i}.attn1.to_q", 0.02, 0.01)) for i in range(2)]
    write_record(folder / "figure-3.json", {**pipeline, "layers": layers, "median_ratio": 0.5, "recipe": {}})
    peaks = {"as it comes": [1.0, 9.0], "rotated": [2.0, 3.0]}
    channels = {
        "layer": "blocks.0.ffn",
        "prompt": "a prompt",
        "peaks": peaks,
        "crest": {"as it comes": 4.5, "rotated": 1.2},
    }
    write_record(folder / "figure-4.json", {**pipeline, **channels})
    write_record(folder / "latency.json", LATENCY)
    write_record(folder / "memory.json", MEMORY)


def row(label: str, bits: str, shift: float, **changes: Any) -> Row:
    values = {"psnr_db": [30.0 + shift, 31.5 + shift, 32.0 + shift], "latent_error": [0.1, 0.2, 0.4]}
    metrics = {name: interval(column) for name, column in values.items()}
    made = Row(label, bits, None, None, metrics, {}, 4.5, None, None, 4.25, 4_000_000, 0.5, None, "key", ("abc",))
    return dataclasses.replace(made, **changes)


ROWS = (
    row("DVD-Quant", "W4A4", 2.0),
    row("MinMax", "W4A4", 0.0, against="DVD-Quant W4A4", differences={"psnr_db": interval([-2.0, -2.5, -1.5])}),
)
SWEPT = (row("DVD-Quant", "W4A8", 3.0), *(row(f"δ = {d:g}", "W4A6", -d, delta=d) for d in (0.1, 0.2)))
LATENCY = Latency(
    model="moving shapes, wan",
    weights="random",
    frames=17,
    height=64,
    width=64,
    tokens=80,
    batch=1,
    device="a GPU",
    dtype="bfloat16",
    methods=(
        MethodTime(
            "Full precision", "", "native", Timing(0.9, 1.0, 1.1, 5), 1.0, Parts(0.0, 0.7, 0.2, 0.2), (), None, 99
        ),
        MethodTime(
            "DVD-Quant",
            "W4A4",
            "native",
            Timing(0.4, 0.5, 0.6, 5),
            2.0,
            Parts(0.1, 0.3, 0.2, 0.1),
            tuple(LayerTime(f"blocks.{i}.to_q", 64, 128, 80, 0.01, 0.02, "a plan") for i in range(3)),
            2**31,
            2**30,
        ),
        MethodTime(
            "MinMax", "W4A4", "native", Timing(0.2, 0.25, 0.3, 5), 4.0, Parts(0.1, 0.1, 0.1, 0.1), (), None, 2**30
        ),
    ),
    videos=(VideoTime("DVD-Quant", "W4A4", {"8": 2, "4": 4}, 2, "somewhere/0000.json", 6.5, 1.9),),
    provenance=PROVENANCE,
)
MEMORY = Memory(
    model="moving shapes, wan",
    weights="random",
    frames=17,
    height=64,
    width=64,
    tokens=80,
    batch=1,
    components={"vae": 3 * 2**20},
    methods=(MethodMemory("DVD-Quant", "W4A4", WeightBytes(2**21, 2**20, 2**20), 2.5, 2**22, None, None),),
    device=None,
    dtype="bfloat16",
    provenance=PROVENANCE,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("results")
    study = fill_store(root / "store")
    write_files(root / "tables")
    method = root / "store" / study.key / METHODS[1].key
    jobs = [job.name for job in study.jobs]
    for dimension, check in (("imaging_quality", False), ("motion_smoothness", True)):
        score = Score(
            dimension, 0.625, dict.fromkeys(jobs, 0.625), (), check, 12.0, "h264", "x", 1.0, {"vbench": "0.1.5"}
        )
        write_record(method / f"vbench-{dimension}.json", score)
    return [root / "store", root / "tables"]


@pytest.fixture(scope="module")
def told() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def report(folders: list[Path], told: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("out") / "new" / "report.html"
    written = write_report(folders, out, title="A <title>", prompts=2, tell=lambda *what: told.append(what))
    assert written == out
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demo(outcome: Any) -> Page:
    poster = np.zeros((4, 4, 3), dtype=np.uint8)
    videos = [[ReportVideo(f"{p} {m.slug}".encode(), poster) for m in DEMO] for p in outcome.prompts]
    return Page(demo_page(outcome.results, outcome.prompts, videos))


@pytest.fixture(scope="module", params=["report", "demo"])
def page(request: pytest.FixtureRequest) -> Page:
    found: Page = request.getfixturevalue(request.param)
    return found


def test_every_element_is_closed(page: Page) -> None:
    assert page.open == []


def test_nothing_is_fetched_from_anywhere(page: Page) -> None:
    addresses = [a[key] for _, a in page.elements for key in ("src", "href", "poster") if a.get(key) is not None]
    assert addresses
    assert all(address is not None and address.startswith(("data:", "#")) for address in addresses)
    assert re.findall(r"url\(|@import|https?://|fetch\(", page.text) == []


def test_the_page_can_be_found_by_those_who_do_not_see_it(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identities) == len(set(identities))
    referred = {str(a["href"])[1:] for a in page.all("a")} | {str(a["aria-labelledby"]) for a in page.all("section")}
    assert referred <= set(identities)
    assert all("scope" in header for header in page.all("th"))
    charts = page.all("svg")
    assert charts
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert [tag for tag, _ in page.elements if tag == "h1"] == ["h1"]
    assert all(video.get("aria-label") or video.get("aria-hidden") == "true" for video in page.all("video"))


def test_text_is_escaped(page: Page) -> None:
    assert "a &lt;processor&gt;" in page.text
    assert "<processor>" not in page.text
    assert "<title>A <" not in page.text


def test_charts_are_well_formed(page: Page) -> None:
    for chart in re.findall(r"<svg.*?</svg>", page.text, re.DOTALL):
        for element in ET.fromstring(chart).iter():
            for value in element.attrib.values():
                assert "nan" not in value.split()
                assert "inf" not in value.split()


def test_each_video_of_the_demo_stands_in_its_place(demo: Page, outcome: Any) -> None:
    wanted = [(f"{p} {m.slug}", f"{p}, {m.title}") for p in outcome.prompts for m in DEMO]
    shown = [
        (base64.b64decode(str(video["src"]).partition(",")[2]).decode(), video["aria-label"])
        for video in demo.all("video")
        if "src" in video
    ]
    assert shown == wanted


def test_the_demos_table_holds_its_figures(demo: Page, outcome: Any) -> None:
    rows = demo.tables["Means over all prompts, same noise"]
    assert [cells[0][0] for cells in rows] == [method.title for method in DEMO]
    assert [text for text, _ in rows[0][1:9]] == ["14.00", "1.00 ×", "–", "4.00", "1.00 ×", "–", "–", "–"]
    assert [text for text, _ in rows[1][1:9]] == ["4.10", "3.41 ×", "6.00", "2.50", "1.60 ×", "28.0", "0.950", "0.100"]
    assert re.search(r"1\.60×</\w+>\s*<\w+>as fast denoising at W4A4, on this machine<", demo.text)
    assert rows[-1][-1] == ("1/2", "0.5")


def test_every_method_of_a_study_has_its_figures(report: Page) -> None:
    found = report.tables["Every method of the study"]
    assert [cells[0][0] for cells in found] == ["Full precision", "DVD-Quant W4A6", "MinMax W4A4"]
    psnr = interval([29.0, 30.0, 31.0])
    values = report.values("Every method of the study")[1]
    assert values[1:3] == ["4000001", "4.25"]
    assert str(psnr.mean) in values
    text = next(text for text, value in found[1] if value == str(psnr.mean))
    assert text == f"{psnr.mean:.1f}{psnr.low:.1f}–{psnr.high:.1f}"
    # Videos, failed, median seconds.
    assert [cells[-3:] for cells in report.values("Every method of the study")] == [
        ["3", "0", "2.5"],
        ["3", "0", "3.5"],
        ["2", "1", "4.5"],
    ]


def test_what_failed_is_listed_and_has_no_video(report: Page) -> None:
    assert [[text for text, _ in cells] for cells in report.tables["Generations that failed"]] == [
        ["MinMax W4A4", "a red circle moves up slowly over a white background", "1", "RuntimeError: out of <memory>"]
    ]
    assert "Failed generations: 1." in report.text
    assert [a for a in report.all("div") if a.get("class") == "absent"] == [{"class": "absent"}]
    assert sum("src" in video for video in report.all("video")) == 2 * len(METHODS) - 1


def test_a_path_check_is_no_score(report: Page) -> None:
    ((name, bits, *cells),) = report.tables["VBench × 100"]
    assert (name[0], bits[0]) == ("DVD-Quant", "W4A6")
    assert cells == [("62.5062.50–62.50, 3", "0.625"), ("path check3", None)]
    assert "random weights in its judge’s place" in report.text


def test_a_tables_figures_are_the_files(report: Page) -> None:
    values = report.values("The threshold δ, 3 videos of each method")
    assert [cells[0] for cells in values] == ["0", "1", "2"]
    for cells, made in zip(values, SWEPT, strict=True):
        assert str(made.bytes) in cells
        assert {str(metric.mean) for metric in made.metrics.values()} <= set(cells)


def test_marks_stand_where_rows_are_apart(report: Page) -> None:
    marks = [a["class"] for tag, a in report.elements if tag == "span" and a.get("role") == "img"]
    assert marks == ["worse"]


def test_latency_and_memory_are_the_files(report: Page) -> None:
    passes = report.values("A pass of the transformer")
    assert passes[0] == ["0", "native", "1.0", "1.0", "99", None]
    assert passes[1] == ["1", "native", "0.5", "2.0", str(2**30), str(2**31)]
    # MinMax is faster; what opens the chapter is ours.
    assert re.search(r"2\.00×</\w+>\s*<\w+>as fast a pass by DVD-Quant W4A4 on a GPU<", report.text)
    ((_, mix, count, seconds, ratio, trace),) = report.tables["A video, from the seconds of its passes"]
    assert (mix[0], count[1], seconds[1], ratio[1], trace[0]) == (
        "2 at 8 bits + 4 at 4 bits",
        "2",
        "6.5",
        "1.9",
        "somewhere/0000.json",
    )
    sizes = report.values("Memory by method")
    assert sizes == [["0", str(2**21), str(2**20), str(2**20), str(2**22), "2.5", str(2**22), None]]
    assert report.values("Other parts of the pipeline") == [["vae", str(3 * 2**20)]]
    heights = re.findall(r"<title>DVD-Quant W4A4, [^:]*: ([^<]*)</title>", report.text)
    assert heights[:4] == ["0.3 (43%)", "0.1 (14%)", "0.2 (29%)", "0.1 (14%)"]


def test_where_no_pass_was_timed_the_videos_say_how_fast(folders: list[Path], tmp_path: Path) -> None:
    page = write_report(folders[:1], tmp_path / "report.html", prompts=1, tell=print_nothing).read_text()
    # Medians of 1.5, 2.5, 3.5 and of a second more.
    assert re.search(rf"{2.5 / 3.5:.2f}×</\w+>\s*<\w+>as fast a video by DVD-Quant W4A6, as they were made<", page)


def test_each_section_says_where_its_figures_come_from(report: Page) -> None:
    assert report.text.count("Where these figures come from") == len(report.all("section"))
    for name in ("table-1", "table-5", "figure-3", "figure-4", "figure-6", "latency", "memory"):
        assert f"tables/{name}.json" in report.text
    assert "store/" in report.text
    assert "0123456789abcdef" in report.text


def test_progress_reaches_its_end(report: Page, told: list[tuple[str, int, int]]) -> None:
    last = {what: (done, total) for what, done, total in told}
    assert last
    assert all(done == total for done, total in last.values())


def test_two_models_are_two_chapters(folders: list[Path], tmp_path: Path) -> None:
    write_record(tmp_path / "latency.json", dataclasses.replace(LATENCY, model="another model"))
    # The store is given twice and taken once.
    out = write_report(
        [folders[0], folders[0].parent, tmp_path], tmp_path / "report.html", prompts=1, tell=print_nothing
    )
    page = Page(out.read_text(encoding="utf-8"))
    assert [a["id"] for a in page.all("h2")] == ["another-model-1", "moving-shapes-wan-2"]
    assert {str(a["href"])[1:] for a in page.all("a")} <= {str(a["id"]) for _, a in page.elements if "id" in a}


def test_what_is_found_twice_has_two_addresses(folders: list[Path], tmp_path: Path) -> None:
    shutil.copytree(folders[1], tmp_path / "again")
    out = write_report([folders[1], tmp_path / "again"], tmp_path / "report.html", tell=print_nothing)
    sections = [str(a["id"]) for a in Page(out.read_text(encoding="utf-8")).all("section")]
    assert len(set(sections)) == len(sections)
    assert {"table-1", "table-1-2"} <= set(sections)


def test_a_store_whose_methods_failed_at_once_says_so(tmp_path: Path) -> None:
    study = Study.bundled("wan", videos=3, steps=STEPS)
    Store(tmp_path, study).method(METHODS[1]).fail(study.jobs[0], "RuntimeError: no memory")
    page = Page(write_report([tmp_path], tmp_path / "report.html", tell=print_nothing).read_text(encoding="utf-8"))
    assert [cells[0][0] for cells in page.tables["Generations that failed"]] == [METHODS[1].key]


def test_methods_are_chosen_by_name(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    write_report(folders, out, methods=["DVD-Quant W4A6", "MinMax"], tell=print_nothing)
    labels = {str(v["aria-label"]).rpartition(", ")[2] for v in Page(out.read_text()).all("video") if "src" in v}
    assert labels == {"DVD-Quant W4A6", "MinMax W4A4"}
    with pytest.raises(DvdqError, match="Full precision, DVD-Quant W4A6, MinMax W4A4, got 'QuaRot'"):
        write_report(folders, out, methods=["QuaRot"], tell=print_nothing)


def test_unasked_full_precision_and_ours_come_first(folders: list[Path]) -> None:
    (path,) = folders[0].glob("*/study.json")
    study = read_study(path, "", print_nothing)
    assert [m.about.title for m in choose_methods(study, ())] == ["Full precision", "DVD-Quant W4A6", "MinMax W4A4"]
    many = dataclasses.replace(study, methods=study.methods * 5)
    assert len(choose_methods(many, ())) == UNASKED


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((64, 64), (256, 256)), ((480, 832), (240, 416)), ((33, 50), (132, 200)), ((512, 300), (512, 300))],
)
def test_videos_are_shown_at_a_size_that_fits(shape: tuple[int, int], shown: tuple[int, int], tmp_path: Path) -> None:
    frames = np.full((2, *shape, 3), 128, np.uint8)
    (tmp_path / "video.mp4").write_bytes(to_video(frames).mp4)
    found = read_mp4(tmp_path / "video.mp4")
    assert found.shape[1:3] == shown
    assert max(shown) <= LARGE
    assert np.abs(found.astype(int) - 128).max() <= 1


def test_the_command_says_where_the_page_is(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["report", *map(str, folders), "--out", str(out), "--prompts", "1", "--title", "T"])
    assert done.exit_code == 0, done.output
    assert str(out) in done.output
    assert "<title>T</title>" in out.read_text(encoding="utf-8")


def test_nothing_found_is_one_error(tmp_path: Path) -> None:
    write_record(tmp_path / "results.json", {"of": "something else"})
    with pytest.raises(DvdqError, match="expected a store's studies"):
        write_report([tmp_path], tmp_path / "report.html", tell=print_nothing)
    with pytest.raises(DvdqError, match="expected a folder, got none"):
        write_report([tmp_path / "none"], tmp_path / "report.html", tell=print_nothing)
    assert not (tmp_path / "report.html").exists()


def test_a_store_of_another_version_is_one_error(folders: list[Path], tmp_path: Path) -> None:
    shutil.copytree(folders[0], tmp_path / "store")
    method = next((tmp_path / "store").rglob("method.json"))
    values = json.loads(method.read_text())
    del values["bits_per_weight"]
    write_record(method, values)
    with pytest.raises(
        DvdqError,
        match=r"method\.json: expected what this version writes, got Object missing required field `bits_per_w",
    ):
        write_report([tmp_path], tmp_path / "report.html", tell=print_nothing)


@pytest.mark.parametrize("text", ["{", "[]", '{"pipeline": "x", "provenance": {}}'])
def test_a_file_that_is_not_what_its_name_says_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "table-1.json").write_text(text)
    with pytest.raises(DvdqError, match=r"table-1\.json: expected what this version writes"):
        write_report([tmp_path], tmp_path / "report.html", tell=print_nothing)


def test_a_page_that_fails_leaves_the_earlier_one(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("earlier")

    def cancel(what: str, done: int, total: int) -> None:
        if what.startswith("Videos"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(folders, out, tell=cancel)
    assert out.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def print_nothing(what: str, done: int, total: int) -> None:
    pass


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.013), (0.0, 730.0), (-2.0, 2.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    values = ticks(low, high, 4)
    assert 2 <= len(values) <= 6
    assert low <= min(values)
    assert max(values) <= high
    assert len({f"{value:.1e}" for value in values}) == len(values)
