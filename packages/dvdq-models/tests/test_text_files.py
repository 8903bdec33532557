"""Text as people's editors leave it: read right, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvdq_models import DvdqError
from dvdq_models.files.text import read_json
from dvdq_models.running.prompts import read_prompts

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
PROMPTS = ("a cat – 猫 – walks", "two\u2028lines? no\x0bone", "a dog")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_prompts_in_every_encoding_that_says_which_it_is(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes((end.join(["", *PROMPTS, " "]) + end).encode(encoding))
    assert read_prompts("test", path) == PROMPTS


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "shift_jis"])
def test_an_encoding_that_does_not_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("une forêt ü 猫".encode(encoding, errors="ignore"))
    with pytest.raises(DvdqError, match=r"prompts\.txt: expected a text file of prompts, in UTF-8, got"):
        read_prompts("test", path)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"name": "猫"}, ensure_ascii=False), encoding=encoding)
    assert read_json("test", tmp_path / "config.json") == {"name": "猫"}


@given(st.binary())
def test_any_bytes_are_an_object_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("json") / "config.json"
    path.write_bytes(data)
    try:
        found: Any = read_json("test", path)
    except DvdqError as error:
        found = str(error)
    assert isinstance(found, dict) or len(found.splitlines()) == 1


def test_depth_and_size_are_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[" * 10**6)
    with pytest.raises(DvdqError, match="expected JSON"):
        read_json("test", path)
    with path.open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(DvdqError, match="expected JSON, got 10,000,000,000 bytes"):
        read_json("test", path)
