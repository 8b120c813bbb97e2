# SPDX-License-Identifier: Apache-2.0
"""The whole accelerator, sized by ``codesign.space.accelerator.Accelerator``, and its Verilog."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Elaboratable, Module, ResetInserter, Signal
from amaranth.lib.wiring import Out, connect

from codesign.space.accelerator import Accelerator
from codesign.space.device import MultiplierKind
from codesign.targets.fpga.hw.axi import AxiLite, axi4
from codesign.targets.fpga.hw.buffers import (
    AccumulatorBuffer,
    ActivationBuffer,
    ParamBuffer,
    TapBuffer,
    WeightBuffer,
)
from codesign.targets.fpga.hw.dense import DenseEngine
from codesign.targets.fpga.hw.depthwise import DepthwiseEngine
from codesign.targets.fpga.hw.drain import Drain
from codesign.targets.fpga.hw.onchip import OnChipMemory
from codesign.targets.fpga.hw.ports import Port
from codesign.targets.fpga.hw.system import System
from codesign.targets.fpga.machine import depthwise_engine

NAME = "codesign_accelerator"


@dataclass(frozen=True)
class OnChip:
    """Memory in block RAM instead of an AXI port: its bytes and their initial content."""

    size: int
    image: bytes = b""


def port_of(accelerator: Accelerator, burst: int = 16) -> Port:
    """The memory port of an accelerator: 128 bits where it has them, else 64."""
    return Port(bits=128 if accelerator.port_bits >= 128 else 64, burst=burst)


def hard_multiplier(accelerator: Accelerator) -> MultiplierKind:
    """The device's hard multiplier as the engines name it, for the requantisers; "lut" where both
    engines multiply in LUTs."""
    kinds = accelerator.dense.multiplier, depthwise_engine(accelerator).multiplier
    return kinds[0] if kinds[0] != "lut" else kinds[1]


def sanitised(name: str) -> str:
    """A Verilog identifier made of ``name``: letters, digits, underscores, not a keyword's form.

    >>> sanitised("ResNet-8; rm")
    'ResNet_8__rm'
    """
    word = re.sub(r"[^A-Za-z0-9_]", "_", name) or "x"
    return word if word[0].isalpha() else f"x{word}"


class Top(Elaboratable):
    """Ports as Vivado and the bench expect them: ``m_axi_…``, ``s_axi_…``, ``irq``, ``trace_…``.

    With ``onchip`` there is no ``m_axi``; a host reaches the memory through registers.
    ``primitive``: vendors' multiplier primitives; otherwise plain products of the same latency, for
    simulation.
    """

    def __init__(
        self, accelerator: Accelerator, *, burst: int = 16, queue: int = 8,
        onchip: OnChip | None = None, primitive: bool = True,
    ) -> None:  # fmt: skip
        self.accelerator = accelerator
        self.dense, self.depthwise = accelerator.dense, depthwise_engine(accelerator)
        self.port = port_of(accelerator, burst)
        self.queue, self.onchip, self.primitive = queue, onchip, primitive
        bits = self.port.bits
        self.lite = {
            n: Signal(_width(m), name=f"s_axi_{n}") for n, m in AxiLite.members.items()
        }
        self.axi = {
            n: Signal(_width(m), name=f"m_axi_{n}") for n, m in axi4(bits).members.items()
        }
        size = (bits // 8).bit_length() - 1
        self.constants = [
            (Signal(width, name=f"m_axi_{channel}{name}"), value)
            for channel in ("ar", "aw")
            for name, width, value in (
                ("size", 3, size), ("burst", 2, 1), ("cache", 4, 3), ("prot", 3, 0),
            )
        ]  # fmt: skip
        self.irq = Signal()
        self.power = Signal()
        """Resets everything, for a clock domain without a reset; not among the ports."""
        self.trace = {
            "started": Signal(4, name="trace_started"),
            "finished": Signal(4, name="trace_finished"),
            "waiting": Signal(25, name="trace_waiting"),
            "client": Signal(2, name="trace_client"),
        }

    @property
    def ports(self) -> list[Any]:
        """All ports but clock and reset."""
        fixed = [signal for signal, _ in self.constants]
        master = [] if self.onchip else [*self.axi.values(), *fixed]
        return [*master, *self.lite.values(), self.irq, *self.trace.values()]

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        system = System(
            self.dense, self.depthwise, self.port, self.queue, host=self.onchip is not None
        )
        m.submodules.system = system
        m.d.comb += system.power.eq(self.power)
        for name, member in AxiLite.members.items():
            inner = getattr(system.bus, name)
            m.d.comb += (
                inner.eq(self.lite[name]) if member.flow is Out else self.lite[name].eq(inner)
            )
        if self.onchip:
            memory = OnChipMemory(self.port, self.onchip.size, self.onchip.image)
            m.submodules.memory = ResetInserter(system.resets[0])(memory)
            connect(m, system.axi, memory.axi)
            m.d.comb += [
                memory.host_on.eq(system.host_on),
                memory.host_write.eq(system.host_write),
                memory.host_address.eq(system.host_address),
                memory.host_data.eq(system.host_data),
                system.host_read.eq(memory.host_read),
            ]
        else:
            for name, member in axi4(self.port.bits).members.items():
                inner = getattr(system.axi, name)
                m.d.comb += (
                    self.axi[name].eq(inner) if member.flow is Out else inner.eq(self.axi[name])
                )
            m.d.comb += [signal.eq(value) for signal, value in self.constants]
        m.d.comb += self.irq.eq(system.irq)
        m.d.comb += [signal.eq(getattr(system, name)) for name, signal in self.trace.items()]
        self._engines(m, system)
        return m

    def _engines(self, m: Module, system: Any) -> None:
        """Buffers and engines, reset with the run."""

        stages = {"depthwise": 5, "drain": 4, "dense": 3, "sums": 3}

        def add(name: str, part: Any) -> Any:
            m.submodules[name] = ResetInserter(system.resets[stages.get(name, 2)])(part)
            return part

        bits = self.port.bits
        buffers = {}
        for name, engine in (("dense", self.dense), ("depthwise", self.depthwise)):
            made: dict[str, Any] = {
                "weight": WeightBuffer(engine, bits),
                "param": ParamBuffer(),
                "tap": TapBuffer(),
                "act": ActivationBuffer(engine, bits),
            }
            for kind, buffer in made.items():
                buffers[name, kind] = add(f"{name}_{kind}", buffer)
                connect(m, getattr(system, f"{name}_{kind}"), buffer.write)
        sums = add("sums", AccumulatorBuffer(self.dense))
        dense = add("dense", DenseEngine(self.dense, primitive=self.primitive))
        connect(m, system.dense, dense.command)
        connect(m, dense.sums, sums.write)
        connect(m, dense.add, sums.add)
        ways: dict[str, Any] = {
            "hard": hard_multiplier(self.accelerator), "primitive": self.primitive,
        }  # fmt: skip
        drain = add("drain", Drain(self.dense, self.depthwise, bits, **ways))
        other = add("depthwise", DepthwiseEngine(self.depthwise, self.dense, bits, **ways))
        connect(m, drain.sums, sums.drain)
        for name, part, source, target in (
            ("drain", drain, "dense", "depthwise"), ("depthwise", other, "depthwise", "dense"),
        ):  # fmt: skip
            connect(m, getattr(system, name), part.command)
            connect(m, part.param, buffers[source, "param"].read)
            connect(m, part.residual, getattr(system, f"{name}_residual"))
            connect(m, part.store, getattr(system, f"{name}_store"))
            connect(m, part.placed, buffers[target, "act"].results)
        for kind in ("act", "weight", "tap"):
            for name, part in (("dense", dense), ("depthwise", other)):
                connect(m, getattr(part, kind), buffers[name, kind].read)
        m.d.comb += [
            system.dense_done.eq(dense.done),
            # sums and stores move while an engine is alive; waiting for others is no progress
            system.active.eq(Cat(0, dense.sums.valid, 0, 0)),
        ]


def _width(member: Any) -> Any:
    return member.shape


def verilog(top: Top | Accelerator, name: str = NAME) -> str:
    """Verilog of an accelerator; module ``name`` (sanitised). Takes some seconds.

    Raises InputError for sizes that no hardware is generated for.
    """
    from amaranth.back import verilog as back

    top = Top(top) if isinstance(top, Accelerator) else top
    text: str = back.convert(
        top, name=sanitised(name), ports=top.ports, emit_src=False, strip_internal_attrs=True
    )
    odd = odd_identifiers(text)
    assert not odd, f"identifiers that need escapes: {odd[:5]}"
    return text


def odd_identifiers(text: str) -> list[str]:
    """Escaped identifiers of Verilog other than Amaranth's own for array elements and ports."""
    return sorted(set(_odd(text)))


def _odd(text: str) -> Iterable[str]:
    return (
        word
        for word in re.findall(r"\\(\S+) ", text)
        if not re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$.:\[\]]*", word)
    )


