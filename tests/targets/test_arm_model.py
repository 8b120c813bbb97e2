# SPDX-License-Identifier: Apache-2.0
"""Modelled figures of ARM boards: instruction counts under QEMU and llvm-mca over loops."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from codesign.errors import InputError, ToolNotFoundError
from codesign.targets import TARGETS
from codesign.targets.arm.board import Board
from codesign.targets.arm.icount import count_instructions, count_program
from codesign.targets.arm.mca import Loop, analyse, inner_loops, layer_loop, products
from codesign.targets.arm.model import layer_ms, peak_macs_per_s, rate
from codesign.targets.tools import require_tool
from tests.targets.test_arm import network, target

MNEMONICS = {
    "multiply": (
        ("sdot v0.4s, v1.16b, v2.16b", 16), ("sdot v0.4s, v1.16b, v2.4b[1]", 16),
        ("udot v0.2s, v1.8b, v2.8b", 8), ("smull v0.8h, v1.8b, v2.8b", 8),
        ("smlal2 v0.8h, v1.16b, v2.16b", 8), ("umlal v0.8h, v1.8b, v2.8b", 8),
        ("smlal v0.4s, v1.4h, v2.4h", 4), ("smlal v0.4s, v1.4h, v2.h[3]", 4),
        ("mla v0.8h, v1.8h, v2.8h", 8), ("mul v0.4s, v1.4s, v2.4s", 4),
        ("fmla v0.4s, v1.4s, v2.4s", 4), ("fmla v0.4s, v1.4s, v2.s[1]", 4),
        ("fmul v0.2d, v1.2d, v2.2d", 2),
    ),
    "simd": (
        ("sadalp v0.4s, v1.8h", 0), ("saddlp v0.4s, v1.8h", 0), ("add v0.4s, v1.4s, v2.4s", 0),
        ("dup v0.4s, w9", 0), ("sshll v0.8h, v1.8b, #0", 0), ("fadd s0, s1, s2", 0),
        ("eor v0.16b, v1.16b, v2.16b", 0), ("sqxtn v0.8b, v1.8h", 0),
    ),
    "load": (
        ("ldr q0, [%1]", 0), ("ldp q0, q1, [%1]", 0), ("ldr x9, [%1, #8]", 0),
        ("ldrsb w9, [%1]", 0), ("ldp x9, x10, [%1]", 0), ("ld1r {v0.4s}, [%1]", 0),
        ("ld1 {v0.16b}, [%1]", 0), ("ldur d0, [%1, #1]", 0), ("ldrsw x9, [%1]", 0),
    ),
    "store": (
        ("str q0, [%1]", 0), ("stp q0, q1, [%1]", 0), ("str x9, [%1, #8]", 0),
        ("strb w9, [%1]", 0), ("st1 {v0.16b}, [%1]", 0), ("stur s0, [%1, #1]", 0),
    ),
    "other": (("add x9, x9, #1", 0), ("madd x9, x9, x9, x9", 0), ("lsl w9, w9, #2", 0)),
    "branch": (("b 2f\n2:", 0),),
}  # fmt: skip
"""Instructions of each class, with the products they make."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``network`` for the Raspberry Pi 5."""
    out = tmp_path_factory.mktemp("model") / "rpi5"
    target("rpi5").build(network(), out)
    return out


def test_every_class_is_counted(tmp_path: Path) -> None:
    """A program that executes every instruction above once a turn; two numbers of turns."""
    body = "\n".join(text for rows in MNEMONICS.values() for text, _ in rows)
    lines = "".join(f'"{line}\\n"' for line in body.splitlines())
    (tmp_path / "all.c").write_text(
        "#include <stdlib.h>\nint main(int c, char** v) {\n"
        "  long n = atol(v[1]); static char memory[64] __attribute__((aligned(16)));\n"
        f'  __asm__ volatile("1:\\n" {lines} "subs %0, %0, #1\\nb.ne 1b\\n" : "+r"(n)\n'
        '    : "r"(memory) : "v0", "v1", "v2", "x9", "x10", "cc", "memory");\n'
        "  return 0; }\n"
    )
    program = str(tmp_path / "all")
    subprocess.run(
        [require_tool("aarch64-c++"), "-x", "c", "-march=armv8.2-a+dotprod", "-O1",
         str(tmp_path / "all.c"), "-o", program], check=True,
    )  # fmt: skip
    board = target("rpi5").board
    few, many = (count_program([program, n], board) for n in ("101", "201"))
    found = {name: (many[name] - few[name]) / 100 for name in few}
    expected = {name: len(rows) for name, rows in MNEMONICS.items()}
    expected["other"] += 1  # subs
    expected["branch"] += 1  # b.ne
    expected["products"] = sum(n for rows in MNEMONICS.values() for _, n in rows)
    assert found == expected


def test_a_call_is_counted_without_loading(folder: Path) -> None:
    board = target("rpi5").board
    counts = count_instructions(folder, board, calls=2)
    macs = 16 * 27 * 81 + 16 * 9 * 81 + 16 * 16 * 81 + 16 * 81 * 10
    assert counts.products >= 0.9 * macs
    assert macs / 20 < counts.total < 40 * macs
    again = count_instructions(folder, board, calls=1)
    assert again.products == counts.products
    assert again.multiply == counts.multiply
    assert abs(again.total - counts.total) < 0.05 * counts.total  # memory is laid out anew


def test_counting_needs_a_whole_build(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="failed under QEMU"):
        count_instructions(tmp_path, target("rpi5").board)
    with pytest.raises(InputError, match="at least 1 call, got 0"):
        count_instructions(folder, target("rpi5").board, 0)


ASSEMBLY = """
k_first:
\tmov x8, x0
.LBB0_1:
\tldr q1, [x1], #16
\tld1r {v2.4s}, [x2], #4
.LBB0_2:
\tsdot v0.4s, v1.16b, v2.16b   // the inner one
\tsdot v3.4s, v1.16b, v2.16b
\tldr q1, [sp, #16]
\tsubs x3, x3, #1
\tb.ne .LBB0_2
\tsubs x4, x4, #1
\tb.ne .LBB0_1
.LBB0_3:
\tadd x9, x9, #1
\tcbnz x9, .LBB0_3
\tret
"""


def test_inner_loops_are_found() -> None:
    (body,) = inner_loops(ASSEMBLY)
    assert body[0] == "sdot v0.4s, v1.16b, v2.16b"
    assert len(body) == 5
    loop = analyse(body, target("rpi5").board)
    assert (loop.macs, loop.instructions, loop.spills) == (32, 5, 1)
    assert loop.rate == 32 / loop.cycles > 1


@pytest.mark.parametrize(
    ("text", "count"),
    [(m, n) for rows in MNEMONICS.values() for m, n in rows if "d," not in m and ".2s" not in m],
)
def test_products_of_instructions(text: str, count: int) -> None:
    """The text of an instruction says the same as its word."""
    assert products(text) == count


def test_loop_of_a_layer(folder: Path) -> None:
    del folder
    for name in ("rpi4", "rpi5"):
        board = target(name)
        loop = layer_loop(network(), "first", board.board, board.machine())
        assert isinstance(loop, Loop)
        assert 0.5 < loop.rate < 33


def test_missing_mca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESIGN_LLVM_MCA", "/nowhere/llvm-mca")
    with pytest.raises(ToolNotFoundError, match="CODESIGN_LLVM_MCA"):
        analyse(["sdot v0.4s, v1.16b, v2.16b"], target("rpi5").board)


def test_model_orders_boards_and_layers() -> None:
    graph = network()
    slow, fast = (layer_ms(graph, target(n).board) for n in ("rpi3", "rpi5"))
    assert all(slow[name] >= fast[name] for name in slow)
    for name in ("rpi3", "rpi5"):
        board = target(name).board
        assert peak_macs_per_s(board) >= rate(board, "dense") * board.clock_mhz * 1e6
    own = Board("own", "", "aarch64", "cortex-a35", (), 1, 1000, 1, 1, "cortex-a35")
    assert rate(own, "dense") > 0
    assert TARGETS.load("rpi3")().latency_bound_ms(10**9) > 0
