"""Hashes of files: those of their bytes, read again only when a file changed, also by another process."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dvdq_eval import digests as module
from dvdq_eval.digests import digests


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVDQ_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "REMEMBERED", 10)
    return tmp_path


def another_process() -> None:
    """What this one remembers is gone."""
    module._digest.cache_clear()


def test_a_large_file_is_read_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = place / "large", place / "small"
    large.write_bytes(b"weights" * 10)
    small.write_bytes(b"{}")
    wanted = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (large, small)]
    told: list[tuple[str, int, int]] = []
    assert digests([large, small], lambda *what: told.append(what)) == wanted
    assert told[-1][1] == told[-1][2]
    another_process()
    read: list[str] = []
    monkeypatch.setattr(module, "_read", lambda path: read.append(path.name) or "read")
    assert digests([large, small]) == [wanted[0], "read"]
    assert read == ["small"]
    assert digests([large, small]) == [wanted[0], "read"]
    assert read == ["small"]


def test_a_file_that_changed_is_read_again(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"0" * 20)
    first = digests([file])
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    file.write_bytes(b"1" * 20)
    another_process()
    assert digests([file]) == [hashlib.sha256(b"1" * 20).hexdigest()] != first


@pytest.mark.parametrize("content", [b"", b"{", b'{"x": 1}', b"\xff"])
def test_a_memory_that_is_none_is_made_anew(place: Path, content: bytes) -> None:
    file = place / "file"
    file.write_bytes(b"0" * 20)
    (place / "cache").mkdir()
    (place / "cache" / "digests.json").write_bytes(content)
    another_process()
    assert digests([file]) == [hashlib.sha256(b"0" * 20).hexdigest()]
    assert str(file).encode() in (place / "cache" / "digests.json").read_bytes()
