# SPDX-License-Identifier: Apache-2.0
"""Hostile names: nothing but plain identifiers reaches Verilog, C, Tcl or the file system."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from codesign.targets.fpga.build.handover import network_header, template
from codesign.targets.fpga.build.names import LONGEST, c_string, identifier, identifiers
from codesign.targets.tools import require_tool

HOSTILE = (
    "", "0", "module", "Always", "int", "3x3", "a b", "a;b", "a\nb", "a\"b", "a\\b", "[exec rm]",
    "$(rm)", "`rm`", "../../etc/passwd", "*/ int x; /*", "ä", "名前", "a.b", "a_b", "A_B", "\x00",
    "x" * 300, "x" * 301, "{", "}", "%s", "__proto__", "conv1.weight:0", "'; drop table", "#",
)  # fmt: skip


def test_every_name_becomes_a_plain_identifier() -> None:
    for name in HOSTILE:
        word = identifier(name)
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", word), (name, word)
        assert len(word) <= LONGEST + 2


def test_different_names_stay_different() -> None:
    found = identifiers(HOSTILE)
    assert set(found) == set(HOSTILE)
    folded = [word.lower() for word in found.values()]
    assert len(set(folded)) == len(HOSTILE)


def test_c_strings_hold_any_text(tmp_path: Path) -> None:
    lines = "\n".join(f"puts({c_string(name)});" for name in HOSTILE if "\x00" not in name)
    source = tmp_path / "names.c"
    source.write_text(f"#include <stdio.h>\nint main(void) {{\n{lines}\nreturn 0;\n}}\n")
    compiler = require_tool("c++")
    subprocess.run([compiler, "-x", "c", str(source), "-o", str(tmp_path / "names")], check=True)
    done = subprocess.run([tmp_path / "names"], capture_output=True, check=True)
    wanted = "".join(f"{name}\n" for name in HOSTILE if "\x00" not in name)
    assert done.stdout.decode() == wanted


def layout_with(names: tuple[str, ...]) -> dict[str, Any]:
    values = {
        name: {"address": 64 * at, "channels": 3, "rows": 2, "columns": 2, "type": "s8",
               "block_step": 32}
        for at, name in enumerate(names)
    }  # fmt: skip
    return {
        "memory_bytes": 4096, "image_bytes": 4096, "values": values, "inputs": [names[0]],
        "outputs": [names[-1]],
        "segments": [{"kind": "accelerator", "nodes": list(names), "address": 64, "commands": 2}],
    }  # fmt: skip


def test_the_header_of_a_network_with_hostile_names_compiles(tmp_path: Path) -> None:
    (tmp_path / "network.h").write_text(network_header(layout_with(HOSTILE)))
    (tmp_path / "codesign_accelerator.h").write_text(template("codesign_accelerator.h"))
    (tmp_path / "x.c").write_text('#include "network.h"\nint main(void) { return 0; }\n')
    compiler = require_tool("c++")
    subprocess.run(
        [compiler, "-x", "c", "-std=c99", "-Wno-unused-variable", "-fsyntax-only", "x.c"],
        cwd=tmp_path, check=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["a b", "top;", "1x", ""])
def test_synthesis_refuses_other_module_names(name: str) -> None:
    from codesign.errors import InputError
    from codesign.targets.fpga.build.synth import synthesise

    with pytest.raises(InputError, match="is no plain Verilog identifier"):
        synthesise("", name, "ecp5")
