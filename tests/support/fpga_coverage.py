# SPDX-License-Identifier: Apache-2.0
"""What a command list exercises of the accelerator, as names that can be counted."""

from __future__ import annotations

from collections import Counter

from codesign.space.accelerator import Engine
from codesign.targets.fpga.compile import Program
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.isa import BLOCK, Command, Dest, Unit
from codesign.targets.fpga.machine import depthwise_engine


def covered(program: Program) -> Counter[str]:
    """Modes of all jobs and commands of a program, with how often each occurs."""
    found: Counter[str] = Counter()
    for job in program.jobs:
        found.update(_of_job(job))
    engines = {Unit.DENSE: program.accelerator.dense}
    engines[Unit.DEPTHWISE] = depthwise_engine(program.accelerator)
    for command in program.commands:
        found.update(_of_command(command, engines))
    return found


def _of_job(job: Job) -> set[str]:
    kind = "maximum" if job.maximum else job.kind
    top, left = job.padding
    reach = [d * (k - 1) for d, k in zip(job.dilation, job.kernel)]
    ends = [
        (out - 1) * stride - pad + far - size + 1
        for out, stride, pad, far, size in zip(
            job.out_size, job.stride, job.padding, reach, job.in_size
        )
    ]
    found = {
        f"{kind} kernel {'1' if job.taps == 1 else 'k'}",
        f"{kind} stride {job.stride[0]}x{job.stride[1]}",
        *(f"{kind} padding {n}" for n, v in zip(("top", "left"), (top, left)) if v > 0),
        *(f"{kind} padding {n}" for n, v in zip(("bottom", "right"), ends) if v > 0),
        *(f"{kind} {n}" for n, v in (("dilated", max(job.dilation) > 1),
                                     ("grouped", job.groups > 1),
                                     ("repeated", max(job.repeat) > 1)) if v),
    }  # fmt: skip
    if not job.maximum:
        bits = 2 if job.weight_bits <= 2 else 4 if job.weight_bits <= 4 else 8
        found.add(f"{kind} weights of {bits} bits")
    return found


def _of_command(command: Command, engines: dict[Unit, Engine]) -> set[str]:
    v, unit = command.values, command.unit
    if unit is Unit.END:
        return {"end"}
    name = unit.name.lower()
    found = {name}
    if unit is Unit.LOAD:
        dest = Dest(v["dest"])
        found.add(f"load {dest.name}")
        if dest in (Dest.DENSE_WEIGHT, Dest.DEPTHWISE_WEIGHT):
            found.add(f"load {dest.name} of {v['bits']} bits")
        if dest in (Dest.DENSE_ACT, Dest.DEPTHWISE_ACT):
            found.add(f"load {dest.name} stride {min(v.get('place_stride', 1) or 1, 2)}")
            found |= {f"load {f}" for f in ("place_nibbles",) if v.get(f)}
            found |= {f"load {f}" for f in ("repeat_x", "repeat_y") if v.get(f, 0) > 1}
        return found
    for flag in ("accumulate", "double", "residual", "wide", "to_chip", "act_signed", "res_signed"):
        if v.get(flag):
            found.add(f"{name} {flag}")
    engine = engines.get(unit, engines[Unit.DENSE])
    lanes = engine.px * (2 if v.get("double") else 1)
    found.add(f"{name} last pixel group {'part' if v['width'] % lanes else 'full'}")
    if unit is not Unit.DENSE:
        blocks = engine.po // BLOCK
        found.add(f"{name} last channel group {'part' if v['blocks'] % blocks else 'full'}")
    else:
        found.add(f"dense weights as {v['weight_bits']} bits")
        found.add(f"dense groups {'1' if v['groups'] == 1 else 'more'}")
    if unit in (Unit.DENSE, Unit.DEPTHWISE):
        found.add(f"{name} rows {'1' if v['rows'] == 1 else 'more'}")
        above = v.get("act_y0", 0) < 0
        found.add(f"{name} {'first rows above the image' if above else 'rows inside'}")
    return found


def everything() -> frozenset[str]:
    """What a full set of networks must have exercised."""
    found = {"end", "load", "dense", "depthwise", "drain"}
    found |= {f"load {dest.name}" for dest in Dest}
    for dest in ("DENSE_WEIGHT", "DEPTHWISE_WEIGHT"):
        found |= {f"load {dest} of {bits} bits" for bits in (2, 4, 8)}
    for dest in ("DENSE_ACT", "DEPTHWISE_ACT"):
        found |= {f"load {dest} stride {stride}" for stride in (1, 2)}
    found |= {"load place_nibbles", "load repeat_x", "load repeat_y"}
    for kind in ("dense", "depthwise", "maximum"):
        found |= {f"{kind} kernel {k}" for k in "1k"}
        found |= {f"{kind} stride {a}x{b}" for a in (1, 2) for b in (1, 2)}
        found |= {f"{kind} padding {side}" for side in ("top", "left", "bottom", "right")}
    for kind in ("dense", "depthwise"):
        found |= {f"{kind} weights of {bits} bits" for bits in (2, 4, 8)} | {f"{kind} dilated"}
        found |= {f"{kind} act_signed", f"{kind} rows 1", f"{kind} rows more"}
        found |= {f"{kind} first rows above the image", f"{kind} rows inside"}
    found |= {"dense grouped", "dense accumulate", "dense double", "dense weights as 4 bits"}
    found |= {"dense weights as 8 bits", "dense groups 1", "dense groups more"}
    for unit in ("dense", "depthwise", "drain"):
        found |= {f"{unit} last pixel group {n}" for n in ("part", "full")}
    for unit in ("depthwise", "drain"):
        found |= {f"{unit} last channel group {n}" for n in ("part", "full")}
        found |= {f"{unit} {flag}" for flag in ("residual", "res_signed", "wide", "to_chip")}
    return frozenset(found | {"drain double"})


UNREACHED = frozenset({"depthwise residual", "depthwise res_signed", "load repeat_y"})
"""What the generators of networks never ask for. Residuals are in the random commands of
``tests/fpga/hw`` (``outside.py``), repeated rows in its loader tests."""
