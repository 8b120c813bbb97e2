# SPDX-License-Identifier: Apache-2.0
"""Accelerators as data: what the solver chooses among and what hardware is generated from.

An accelerator has one engine for dense convolutions and linear layers and, optionally, one for
depthwise convolutions. All engines share one AXI data port. ``docs/formulation.md`` describes the
machine that the fields stand for, and the tests of ``codesign.cost`` hold the numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from codesign.errors import InputError
from codesign.space.device import MULTIPLIERS, MultiplierKind

EngineKind = Literal["dense", "depthwise"]


@dataclass(frozen=True)
class Buffer:
    """On-chip memory of one engine operand; its word is as wide as the engine reads in a cycle."""

    depth: int
    """Words in one bank."""
    banks: int = 2
    """2: ping-pong, one bank is filled or drained while the engine works on the other."""


@dataclass(frozen=True)
class Engine:
    """One array of multipliers with its buffers.

    Dense: each cycle takes one kernel tap of ``pi`` input channels and adds to ``po`` output
    channels at ``px`` neighbouring output pixels: pi · po · px products. Sums stay in registers
    over all taps and input channels of the tile and then go to the accumulator buffer.
    Depthwise: each cycle takes one tap of ``po`` channels at ``px`` pixels (``pi`` is 1); finished
    sums go straight through the requantisers, so there is no accumulator buffer.
    """

    kind: EngineKind
    pi: int
    po: int
    px: int
    weight: Buffer
    """Word: pi · po weights of ``weight_bits`` (depthwise: po)."""
    activation: Buffer
    """``px`` memories side by side; the word of one: pi activations (depthwise: po)."""
    accumulator: Buffer = Buffer(0)
    """``px`` memories side by side; the word of one: po sums of ``accumulator_bits``."""
    weight_bits: int = 8
    """Widest weights that the multipliers take."""
    activation_bits: int = 8
    """Widest activations that the multipliers take."""
    multiplier: MultiplierKind = "dsp48e2"
    double: bool = False
    """w4a4 layers run at twice the pixels: 2 · px pixels a cycle of 4-bit activations."""
    post: int = 8
    """Requantisers: sums brought to the output format in one cycle."""
    accumulator_bits: int = 32

    def __post_init__(self) -> None:
        for name in ("pi", "po", "px", "post"):
            if getattr(self, name) < 1:
                raise InputError(f"engine {name} is {getattr(self, name)}; expected at least 1")
        if self.kind not in ("dense", "depthwise"):
            raise InputError(f"engine kind {self.kind!r}; expected 'dense' or 'depthwise'")
        if self.kind == "depthwise" and self.pi != 1:
            raise InputError(f"a depthwise engine has pi = 1, got {self.pi}")
        if self.multiplier not in MULTIPLIERS:
            raise InputError(
                f"engine multiplier {self.multiplier!r}; expected one of {', '.join(MULTIPLIERS)}"
            )
        for name in ("weight_bits", "activation_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise InputError(f"engine {name} is {getattr(self, name)}; expected 2 to 8")
        if self.double and (self.kind != "dense" or self.weight_bits < 4):
            raise InputError("engine double: only a dense engine of 4-bit or wider weights doubles")

    @property
    def lanes(self) -> int:
        """Products in one cycle (not doubled)."""
        return self.pi * self.po * self.px

    def takes(self, weight_bits: int, activation_bits: int) -> bool:
        """Whether layers of this format run on the engine."""
        return weight_bits <= self.weight_bits and activation_bits <= self.activation_bits

    def rates(self, weight_bits: int, activation_bits: int) -> tuple[int, ...]:
        """Multiples of ``px`` that a layer of this format may run at."""
        if self.double and weight_bits <= 4 and activation_bits <= 4:
            return (1, 2)
        return (1,)

    @property
    def ping_pong(self) -> bool:
        """Whether loads and stores overlap with compute."""
        used = [self.weight, self.activation]
        if self.kind == "dense":
            used.append(self.accumulator)
        return all(buffer.banks == 2 for buffer in used)


@dataclass(frozen=True)
class Accelerator:
    """A dense engine, perhaps a depthwise engine, and the port to memory."""

    dense: Engine
    depthwise: Engine | None
    port_bits: int
    """Width of the AXI data port, the same for reads and writes."""

    def __post_init__(self) -> None:
        if self.dense.kind != "dense":
            raise InputError(f"the dense engine has kind {self.dense.kind!r}")
        if self.depthwise is not None and self.depthwise.kind != "depthwise":
            raise InputError(f"the depthwise engine has kind {self.depthwise.kind!r}")
        if self.port_bits < 8 or self.port_bits & (self.port_bits - 1):
            raise InputError(f"port_bits is {self.port_bits}; expected a power of two from 8 on")

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines that are there."""
        return (self.dense,) if self.depthwise is None else (self.dense, self.depthwise)

    @property
    def name(self) -> str:
        """All fields in one word, different for different accelerators."""
        return "_".join([*(_engine_name(engine) for engine in self.engines), f"p{self.port_bits}"])

    def to_data(self) -> dict[str, Any]:
        """Plain data for a design file."""
        return asdict(self)

    @staticmethod
    def from_data(data: dict[str, Any]) -> Accelerator:
        """Read ``to_data`` back; raises InputError."""
        try:
            engines = [_engine(data[key]) for key in ("dense", "depthwise")]
            port = data["port_bits"]
        except (KeyError, TypeError) as error:
            raise InputError(f"accelerator data: missing or unknown field {error}") from None
        if engines[0] is None:
            raise InputError("accelerator data: dense engine is null")
        return Accelerator(engines[0], engines[1], port)


def built_depthwise(accelerator: Accelerator) -> Engine:
    """The accelerator's depthwise engine; a small one where the description has none.

    Pooling and element-wise operators run on it, so hardware always has one.
    """
    if accelerator.depthwise is not None:
        return accelerator.depthwise
    return Engine(
        "depthwise", 1, 8, 1, Buffer(256), Buffer(1024),
        multiplier=accelerator.dense.multiplier, post=4,
    )  # fmt: skip


def _engine(data: dict[str, Any] | None) -> Engine | None:
    if data is None:
        return None
    fields = dict(data)
    for key in ("weight", "activation", "accumulator"):
        fields[key] = Buffer(**fields[key])
    return Engine(**fields)


def _engine_name(e: Engine) -> str:
    kind = "d" if e.kind == "dense" else "dw"
    bits = f"w{e.weight_bits}a{e.activation_bits}{'x2' if e.double else ''}"
    unit = "" if e.multiplier != "lut" else "lut"
    buffers = [e.weight, e.activation, *([e.accumulator] if e.kind == "dense" else [])]
    depths = "x".join(str(buffer.depth) for buffer in buffers)
    single = "" if e.ping_pong else "s"
    sums = "" if e.accumulator_bits == 32 else f"c{e.accumulator_bits}"
    return f"{kind}{e.pi}x{e.po}x{e.px}{bits}{unit}{sums}b{depths}{single}q{e.post}"
