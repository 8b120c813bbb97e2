# SPDX-License-Identifier: Apache-2.0
"""Vendor multipliers as Amaranth instances, with the registers inside that the design counts on.

Ports and modes: UG579 (DSP48E2), UG479 (DSP48E1), FPGA-TN-02205 and the ``MULT18X18D`` of yosys's
ECP5 library. ``models/*.v`` are behavioural models of what is used here, for simulation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amaranth import C, Cat, ClockSignal, Instance, Module, Signal, signed

from codesign.space.device import MultiplierKind

MODELS = Path(__file__).parent / "models"
MODEL_FILES = {
    "dsp48e2": MODELS / "dsp48e2.v",
    "dsp48e1": MODELS / "dsp48e1.v",
    "mult18": MODELS / "mult18x18d.v",
}
"""Simulation model of each hard multiplier."""
RAM_MODEL = MODELS / "dp16kd.v"
"""Simulation model of the ECP5's block RAM, which yosys has as a black box only."""
BUFFER_MODEL = MODELS / "dcca.v"
"""The same of its global buffer."""


def model_files() -> list[Path]:
    """All simulation models."""
    return sorted(MODEL_FILES.values())


def extend(value: Any, bits: int) -> Any:
    """A signed value sign-extended (or cut) to a plain vector of ``bits``."""
    value = value if len(value) <= bits else value[:bits].as_signed()
    extra = bits - len(value)
    return Cat(value, *([value[-1]] * extra)) if extra else Cat(value)


def dsp48(
    m: Module, kind: MultiplierKind, *, a: Any, b: Any, enable: Any, d: Any = None, c: Any = None,
    pcin: Any = None, a_registers: int = 1, b_registers: int = 2,
) -> tuple[Any, Any]:  # fmt: skip
    """One DSP48E1 or E2: P = (A + D) · B + C, or A · B + C, or A · B + PCIN >> 17.

    ``a``, ``b``, ``d``: signed values; ``c``: 48 bits. With ``d`` the pre-adder is used and its
    register adds a stage to the A side. C has one register, before the adder; then M and P. Returns
    P as 48 bits and PCOUT.
    """
    ultra = kind == "dsp48e2"
    wide = 27 if ultra else 25
    p = Signal(48)
    pcout = Signal(48)
    add = d is not None
    z = "101" if pcin is not None else "011" if c is not None else "000"
    opmode = int(("00" if ultra else "") + z + "0101", 2)
    parameters: dict[str, Any] = {
        "A_INPUT": "DIRECT", "B_INPUT": "DIRECT", "USE_MULT": "MULTIPLY", "USE_SIMD": "ONE48",
        "AREG": a_registers, "ACASCREG": a_registers, "BREG": b_registers, "BCASCREG": b_registers,
        "ADREG": 1, "DREG": 1, "CREG": 1, "MREG": 1, "PREG": 1, "INMODEREG": 0, "OPMODEREG": 0,
        "ALUMODEREG": 0, "CARRYINREG": 0, "CARRYINSELREG": 0,
    }  # fmt: skip
    if ultra:
        parameters |= {"AMULTSEL": "AD" if add else "A", "BMULTSEL": "B", "PREADDINSEL": "A"}
    else:
        parameters |= {"USE_DPORT": "TRUE" if add else "FALSE"}
    zero = C(0, 1)
    inputs: dict[str, Any] = {
        "CLK": ClockSignal(), "A": extend(a, 30), "B": extend(b, 18),
        "D": extend(d, wide) if add else C(0, wide), "C": C(0, 48) if c is None else c,
        "PCIN": C(0, 48) if pcin is None else pcin, "ACIN": C(0, 30), "BCIN": C(0, 18),
        "INMODE": C(0b00100 if add else 0, 5), "OPMODE": C(opmode, 9 if ultra else 7),
        "ALUMODE": C(0, 4), "CARRYIN": zero, "CARRYINSEL": C(0, 3), "CARRYCASCIN": zero,
        "MULTSIGNIN": zero, "CEA1": enable if a_registers == 2 else zero, "CEA2": enable,
        "CEB1": enable if b_registers == 2 else zero, "CEB2": enable, "CEC": enable,
        "CED": enable if add else zero, "CEAD": enable if add else zero, "CEM": enable,
        "CEP": enable, "CEALUMODE": zero, "CECARRYIN": zero, "CECTRL": zero, "CEINMODE": zero,
    }  # fmt: skip
    for reset in ("A", "ALLCARRYIN", "ALUMODE", "B", "C", "CTRL", "D", "INMODE", "M", "P"):
        inputs[f"RST{reset}"] = zero
    m.submodules += Instance(
        "DSP48E2" if ultra else "DSP48E1",
        *[("p", name, value) for name, value in parameters.items()],
        *[("i", name, value) for name, value in inputs.items()],
        ("o", "P", p),
        ("o", "PCOUT", pcout),
    )
    return p, pcout


def mult18(m: Module, a: Any, b: Any, enable: Any) -> Any:
    """One MULT18X18D, registers at inputs, inside and at the output: a · b, as many bits as both
    have, after three edges.

    Operands stand at the upper end of their inputs: zeros below cost no wires, a sign that is
    repeated above goes to every input of its own.
    """
    p = Signal(36)
    spare_a, spare_b = 18 - len(a), 18 - len(b)
    left, right = Cat(C(0, spare_a), a), Cat(C(0, spare_b), b)
    parameters: dict[str, Any] = {
        "GSR": "DISABLED", "CAS_MATCH_REG": "FALSE", "MULT_BYPASS": "DISABLED",
        "RESETMODE": "SYNC", "SOURCEB_MODE": "B_SHIFT",
    }  # fmt: skip
    for register in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT"):
        parameters[f"REG_{register}_CLK"] = "CLK0"
        parameters[f"REG_{register}_CE"] = "CE0"
        parameters[f"REG_{register}_RST"] = "RST0"
    parameters["REG_INPUTC_CLK"] = "NONE"
    one, zero = C(1, 1), C(0, 1)
    inputs: dict[str, Any] = {
        "SIGNEDA": one, "SIGNEDB": one, "SOURCEA": zero, "SOURCEB": zero, "CLK0": ClockSignal(),
        "CE0": enable, "RST0": zero,
    }  # fmt: skip
    for number in range(1, 4):
        inputs |= {f"CLK{number}": zero, f"CE{number}": one, f"RST{number}": zero}
    for name, value in (("A", left), ("B", right), ("C", C(0, 18))):
        inputs |= {f"{name}{bit}": value[bit] for bit in range(18)}
    m.submodules += Instance(
        "MULT18X18D",
        *[("p", name, value) for name, value in parameters.items()],
        *[("i", name, value) for name, value in inputs.items()],
        *[("o", f"P{bit}", p[bit]) for bit in range(36)],
    )
    return p[spare_a + spare_b :]


def lut_multiply(m: Module, a: Any, w: Any, enable: Any) -> Any:
    """Signed a · w from LUTs and carry chains in three stages: operands' registers are the caller's
    first; digits of two weight bits, their sum.

    Written as additions of gated operands, so that no synthesis takes a hard multiplier for it.
    """
    digits = []
    bits = len(w)
    for at in range(0, bits, 2):
        last = at + 2 >= bits
        low = _gated(a, w[at])
        if at + 1 == bits:  # an odd top bit alone: its weight is negative
            value: Any = -low
        else:
            upper = _gated(a, w[at + 1]) << 1
            value = low - upper if last else low + upper
        digit = Signal(signed(len(a) + 2), reset_less=True)
        with m.If(enable):
            m.d.sync += digit.eq(value)
        digits.append(digit)
    total: Any = digits[0]
    for place, digit in enumerate(digits[1:], 1):
        total = total + (digit << 2 * place)
    out = Signal(signed(len(a) + bits), reset_less=True)
    with m.If(enable):
        m.d.sync += out.eq(total)
    return out


def _gated(a: Any, bit: Any) -> Any:
    return Cat(*[a[place] & bit for place in range(len(a))]).as_signed()
