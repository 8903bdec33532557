"""A result's folder is complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvdq_eval.records import complete_folder
from dvdq_reference.spec.errors import DvdqError

CONTENTS = frozenset({"a.txt", "b.txt"})


def test_the_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    final = tmp_path / "out" / "demo"
    with complete_folder(final, CONTENTS) as folder:
        (folder / "a.txt").write_text("1")
        assert not final.exists()
    assert (final / "a.txt").read_text() == "1"
    assert [path.name for path in final.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_new_appears_if_the_block_fails(tmp_path: Path, error: type[BaseException]) -> None:
    def fail(final: Path) -> None:
        with complete_folder(final, CONTENTS) as folder:
            (folder / "a.txt").write_text("half")
            raise error

    with pytest.raises(error):
        fail(tmp_path / "new")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.txt").write_text("whole")
    with pytest.raises(error):
        fail(tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "a.txt").read_text() == "whole"


def test_an_earlier_result_is_replaced_whole(tmp_path: Path) -> None:
    final = tmp_path / "demo"
    for name in ("a.txt", "b.txt"):
        with complete_folder(final, CONTENTS) as folder:
            (folder / name).write_text(name)
    assert [path.name for path in final.iterdir()] == ["b.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DvdqError, match=r"thesis\.txt"), complete_folder(tmp_path, CONTENTS):
        pytest.fail("the block must not begin")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(DvdqError, match="a file"), complete_folder(tmp_path / "demo", CONTENTS):
        pytest.fail("the block must not begin")
