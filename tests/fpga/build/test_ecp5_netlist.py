# SPDX-License-Identifier: Apache-2.0
"""Registers into block RAM and global resets: done where they can be, and nothing changes."""

from __future__ import annotations

import json
from pathlib import Path

from codesign.targets.fpga.build.synth import synthesise
from codesign.targets.fpga.hw.primitives import BUFFER_MODEL, RAM_MODEL
from codesign.targets.fpga.programs import require_program, run_program

DESIGN = """// registers behind block RAM, a reset of many registers
module top(input clk, input hold, input power, input [4:0] at, input [35:0] put, input write,
           output reg [35:0] plain, output reg [35:0] held, output [35:0] both,
           output reg [159:0] count);
  (* ram_style = "block", no_rw_check *) reg [35:0] a [0:31];
  (* ram_style = "block", no_rw_check *) reg [35:0] b [0:31];
  (* ram_style = "block", no_rw_check *) reg [35:0] c [0:31];
  reg [35:0] from_a, from_b, from_c, once;
  reg reset = 1;
  wire [4:0] other = at ^ 5'd1;
  always @(posedge clk) begin
    if (write) begin a[other] <= put; b[other] <= put; c[other] <= put; end
    from_a <= a[at]; from_b <= b[at]; from_c <= c[at];
    plain <= from_a;
    if (hold) held <= from_b;
    once <= from_c;
    reset <= power;
    if (reset) count <= 0; else count <= {count[158:0], ~count[159] ^ put[0]};
  end
  assign both = once ^ from_c;
endmodule
"""
BENCH = """
module bench;
  reg clk = 0, hold = 0, power = 1, write = 1;
  reg [4:0] at = 0;
  reg [35:0] put = 0;
  wire [35:0] plain, held, both, plain_2, held_2, both_2;
  wire [159:0] count, count_2;
  integer n, bad = 0;
  top one(clk, hold, power, at, put, write, plain, held, both, count);
  mapped two(clk, hold, power, at, put, write, plain_2, held_2, both_2, count_2);
  initial begin
    for (n = 0; n < 300; n = n + 1) begin
      #5 clk = 1; #5 clk = 0;
      if (n > 50 && {plain, held, both, count} !== {plain_2, held_2, both_2, count_2})
        bad = bad + 1;
      at = n < 40 ? n : $random; put = {$random, $random}; hold = $random;
      write = n < 40 || n % 3 == 0; power = n < 4 || n == 150;
    end
    $display("bad %0d count %h", bad, count);
    $finish;
  end
endmodule
"""


def test_registers_and_resets_move_and_nothing_changes(tmp_path: Path) -> None:
    made = synthesise(DESIGN, "top", "ecp5")
    cells = json.loads(made.netlist.read_text())["modules"]["top"]["cells"]
    rams = [c["parameters"] for c in cells.values() if c["type"] == "DP16KD"]
    modes = sorted((r["REGMODE_A"].strip(), r["REGMODE_B"].strip()) for r in rams)
    # c's register stays outside: its memory's data go elsewhere, too
    assert modes == [("NOREG", "NOREG"), ("OUTREG", "OUTREG"), ("OUTREG", "OUTREG")]
    registers = sum(c["type"] == "TRELLIS_FF" for c in cells.values())
    assert registers == made.ff == 160 + 1 + 36
    (buffer,) = [c for c in cells.values() if c["type"] == "DCCA"]
    resets = [c["connections"]["LSR"] for c in cells.values() if c["type"] == "TRELLIS_FF"]
    assert resets.count(buffer["connections"]["CLKO"]) == 160
    # the same outputs as the design itself, cycle by cycle
    text = made.verilog.read_text().replace("module top(", "module mapped(")
    assert "module mapped(" in text
    (tmp_path / "mapped.v").write_text(text)
    (tmp_path / "top.v").write_text(DESIGN)
    (tmp_path / "bench.v").write_text(BENCH)
    share = Path(require_program("yosys")).resolve().parents[1] / "share" / "yosys" / "ecp5"
    simulated = (share / "cells_sim.v").read_text()
    start = simulated.index("module DP16KD(")
    end = simulated.index("endmodule", start) + len("endmodule")
    (tmp_path / "cells.v").write_text(simulated[:start] + simulated[end:])
    run_program(
        [require_program("iverilog"), "-g2012", "-s", "bench", "-o", tmp_path / "bench",
         "-I", share.parent / "ecp5", "-I", share.parent, tmp_path / "bench.v",
         tmp_path / "top.v", tmp_path / "mapped.v", tmp_path / "cells.v", RAM_MODEL, BUFFER_MODEL],
        "building the netlist's simulation",
    )  # fmt: skip
    said = run_program([require_program("vvp"), "-n", tmp_path / "bench"], "the netlist").split()
    assert said[:2] == ["bad", "0"]
    assert int(said[3], 16) != 0  # it has counted
