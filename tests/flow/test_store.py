# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.errors import InputError
from codesign.flow.store import make_folder, read_json, write_json, written_aside


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted() -> None:
        with written_aside(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_unwritable_folder_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        make_folder(tmp_path / "file" / "out")
    assert str(caught.value) == (
        f"output folder {tmp_path}/file/out: cannot be written (Not a directory); "
        "choose another with --out or change its permissions"
    )


def test_json_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "design.json"
    write_json(path, {"format": "codesign-design/0"})
    with pytest.raises(InputError) as caught:
        read_json(path, "codesign-design/1", "codesign design")
    assert str(caught.value) == (
        f"{path}: expected format 'codesign-design/1', got 'codesign-design/0'"
    )


def test_damaged_json_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "design.json"
    path.write_text('{"format": \n oops}')
    with pytest.raises(InputError) as caught:
        read_json(path, "codesign-design/1", "codesign design N --out D")
    assert str(caught.value) == (
        f"{path}: line 2, column 2: not JSON (Expecting value); "
        "make it anew with `codesign design N --out D`"
    )
