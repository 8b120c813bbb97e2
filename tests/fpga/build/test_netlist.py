# SPDX-License-Identifier: Apache-2.0
"""The netlist after synthesis for ECP5, an accelerator with its memory, simulated in Icarus."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codesign.ir import run_values
from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.build.synth import synthesise
from codesign.targets.fpga.compile import compile_network
from codesign.targets.fpga.hw.primitives import BUFFER_MODEL, MODEL_FILES, RAM_MODEL
from codesign.targets.fpga.hw.registers import Register
from codesign.targets.fpga.hw.top import OnChip, Top
from codesign.targets.fpga.programs import require_program, run_program
from codesign.targets.fpga.sim.network import memory_bytes
from tests.fpga.build.networks import small_network
from tests.support.fpga import accelerator, random_inputs

BENCH = """
module bench;
  reg clk = 0, rst = 1;
  reg [7:0] awaddr = 0, araddr = 0;
  reg awvalid = 0, wvalid = 0, arvalid = 0;
  reg [31:0] wdata = 0, value;
  wire awready, wready, arready, rvalid, bvalid, irq;
  wire [31:0] rdata;
  integer n, word;
  top dut(.clk(clk), .rst(rst), .s_axi_awaddr(awaddr), .s_axi_awvalid(awvalid),
    .s_axi_awready(awready), .s_axi_wdata(wdata), .s_axi_wstrb(4'hf), .s_axi_wvalid(wvalid),
    .s_axi_wready(wready), .s_axi_bvalid(bvalid), .s_axi_bready(1'b1), .s_axi_araddr(araddr),
    .s_axi_arvalid(arvalid), .s_axi_arready(arready), .s_axi_rdata(rdata), .s_axi_rvalid(rvalid),
    .s_axi_rready(1'b1), .irq(irq));
  always #5 clk = ~clk;
  task put(input [7:0] address, input [31:0] data); begin
    @(negedge clk) awaddr = address; wdata = data; awvalid = 1; wvalid = 1;
    #1 while (!awready) begin @(negedge clk); #1; end
    @(negedge clk) awvalid = 0; wvalid = 0;
  end endtask
  task get(input [7:0] address); begin
    @(negedge clk) araddr = address; arvalid = 1;
    #1 while (!arready) begin @(negedge clk); #1; end
    @(negedge clk) arvalid = 0;
    while (!rvalid) @(negedge clk);
    value = rdata;
    @(negedge clk);
  end endtask
  initial begin
    repeat (4) @(negedge clk);
    rst = 0;
    put(INTERRUPT, 1);
    put(COMMANDS, LIST);
    put(CONTROL, 1);
    for (n = 0; n < LIMIT && !irq; n = n + 1) @(negedge clk);
    get(STATUS);
    $display("status %0d", value);
    get(CYCLES_LOW);
    $display("cycles %0d", value);
    put(HOST_ADDRESS, FIRST);
    for (word = 0; word < WORDS; word = word + 1) begin
      repeat (8) @(negedge clk);
      get(HOST_LOW);
      $write("%h ", value);
      get(HOST_HIGH);
      $display("%h", value);
    end
    $finish;
  end
endmodule
"""


def machine() -> Accelerator:
    """The smallest one that the small network fits on, with the part's multipliers."""
    small = accelerator(8, 8, 1, (64, 128, 128), (8, 1), (64, 128), 4, 4)
    assert small.depthwise is not None
    return Accelerator(
        replace(small.dense, multiplier="mult18"), replace(small.depthwise, multiplier="mult18"), 64
    )


@pytest.mark.soak  # synthesis takes minutes
@pytest.mark.timeout(3600)
def test_network_on_the_netlist(tmp_path: Path) -> None:
    from amaranth.back import rtlil

    graph = small_network()
    program = compile_network(graph, machine())
    (segment,) = program.segments
    inputs = random_inputs(graph, np.random.default_rng(8))
    (source,), (result,) = graph.inputs, graph.outputs
    place, out = program.places[source], program.places[result]
    image = bytearray(program.image.ljust(program.memory_bytes, b"\0"))
    held = place.pack(inputs[source])
    image[place.address : place.address + len(held)] = held
    wanted = out.pack(run_values(graph, inputs)[result])

    top = Top(machine(), onchip=OnChip(memory_bytes(program), bytes(image)))
    text = rtlil.convert(top, name="top", ports=top.ports, emit_src=False)
    netlist = synthesise(text, "top", "ecp5")
    words = -(-len(wanted) // 8)
    values = {
        **{r.name: f"8'd{int(r)}" for r in Register}, "LIST": segment.address, "LIMIT": 100_000,
        "FIRST": out.address // 8, "WORDS": words,
    }  # fmt: skip
    bench = re.sub(r"\b[A-Z_]{4,}\b", lambda m: str(values.get(m[0], m[0])), BENCH)
    (tmp_path / "bench.v").write_text(bench)
    share = Path(require_program("yosys")).resolve().parents[1] / "share" / "yosys" / "ecp5"
    cells = (share / "cells_sim.v").read_text()
    start = cells.index("module DP16KD(")  # without behaviour there
    end = cells.index("endmodule", start) + len("endmodule")
    (tmp_path / "cells.v").write_text(cells[:start] + cells[end:])
    run_program(
        [require_program("iverilog"), "-g2012", "-s", "bench", "-o", tmp_path / "bench",
         "-I", share.parent / "ecp5", "-I", share.parent, tmp_path / "bench.v", netlist.verilog,
         MODEL_FILES["mult18"], RAM_MODEL, BUFFER_MODEL, tmp_path / "cells.v"],
        "building the netlist's simulation",
    )  # fmt: skip
    said = run_program([require_program("vvp"), "-n", tmp_path / "bench"], "the netlist").split()
    assert said[:2] == ["status", "2"]  # done, no error
    assert said[2] == "cycles"
    found = b"".join(int(word, 16).to_bytes(4, "little") for word in said[4:])
    assert found[: len(wanted)] == bytes(wanted)
