# SPDX-License-Identifier: Apache-2.0
"""The accelerator on a ULX3S board: clock, buttons, LEDs and a serial host around it.

Pins: the board's own constraint file, emard/ulx3s ``doc/constraints/ulx3s_v20.lpf`` (v2.x and v3.x
boards). Memory is block RAM with the network's image as its initial content; the host writes the
input, starts a run and reads results over the USB serial port. LEDs, from 0: clock locked, serial
line busy, running, done; the upper four blink with the clock. Button 1 (FIRE 1) starts a run.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Instance, Module, ResetInserter, Signal
from amaranth.lib.wiring import Out

from codesign.errors import InputError
from codesign.targets.fpga.hw.axi import AxiLite
from codesign.targets.fpga.hw.serial import SerialHost

INPUT_HZ = 25_000_000
BAUD = 1_000_000
"""The board's FT231X goes up to 3 Mbaud."""
PINS: dict[str, tuple[str, str]] = {
    "clk_25mhz": ("G2", "PULLMODE=NONE IO_TYPE=LVCMOS33"),
    "ftdi_txd": ("M1", "PULLMODE=UP IO_TYPE=LVCMOS33"),
    "ftdi_rxd": ("L4", "PULLMODE=UP IO_TYPE=LVCMOS33 DRIVE=4"),
    "go": ("R1", "PULLMODE=DOWN IO_TYPE=LVCMOS33"),
    **{
        f"led_{at}": (site, "PULLMODE=NONE IO_TYPE=LVCMOS33 DRIVE=4")
        for at, site in enumerate(("B2", "C2", "C1", "D2", "D1", "E2", "E1", "H3"))
    },
}
"""Port to site and pad settings. ``ftdi_txd`` is the bridge's output, ``go`` is button FIRE 1."""


def constraints() -> str:
    """The LPF file: sites, pads, the input clock."""
    lines = ["BLOCK RESETPATHS;", "BLOCK ASYNCPATHS;",
             "SYSCONFIG CONFIG_IOVOLTAGE=3.3 COMPRESS_CONFIG=ON MCCLK_FREQ=62;",
             'FREQUENCY PORT "clk_25mhz" 25 MHZ;']  # fmt: skip
    for port, (site, pad) in PINS.items():
        lines.append(f'LOCATE COMP "{port}" SITE "{site}";')
        lines.append(f'IOBUF PORT "{port}" {pad};')
    return "\n".join(lines) + "\n"


def pll(clock_hz: int) -> tuple[int, int, int]:
    """(input, feedback, output divider) of an EHXPLLL for multiples of 12.5 MHz.

    The input is only divided, by 2, for odd multiples: the phase detector takes 10 MHz or more.
    The oscillator, clock · output divider, must lie in 400 to 800 MHz (FPGA-TN-02200); the divider
    nearest to 600 MHz is taken. Raises InputError for other clocks.

    >>> pll(100_000_000), pll(87_500_000)
    ((1, 4, 6), (2, 7, 7))
    """
    if clock_hz <= 0 or 2 * clock_hz % INPUT_HZ or clock_hz > 400_000_000:
        raise InputError(
            f"clock of {clock_hz / 1e6:g} MHz; the ULX3S design makes multiples of 12.5 MHz up to "
            "400"
        )
    divider = max(1, round(600_000_000 / clock_hz))
    before = 1 if clock_hz % INPUT_HZ == 0 else 2
    return before, clock_hz * before // INPUT_HZ, divider


class Ulx3s(Elaboratable):
    """Everything on the chip around a ``hw.top.Top``.

    ``with_pll`` False: the input clock runs it, for simulation.
    """

    def __init__(self, top: Any, clock_hz: int, *, baud: int = BAUD, with_pll: bool = True) -> None:
        if not top.onchip:
            raise InputError("the ULX3S design keeps its memory on the chip; give Top an onchip")
        self.top, self.clock_hz, self.baud, self.with_pll = top, clock_hz, baud, with_pll
        self.clk = Signal(name="clk_25mhz")
        self.receive = Signal(name="ftdi_txd", init=1)
        self.send = Signal(name="ftdi_rxd", init=1)
        self.go = Signal(name="go")
        self.leds = [Signal(name=f"led_{at}") for at in range(8)]

    @property
    def ports(self) -> list[Any]:
        """All pins."""
        return [self.clk, self.receive, self.send, self.go, *self.leds]

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        # no reset net to all of the chip: registers start with the bitstream's values, and a reset
        # that goes from register to register holds them until the clock is locked
        sync, start = (ClockDomain(name, reset_less=True) for name in ("sync", "start"))
        m.domains += [sync, start]
        power = Signal(init=1)
        locked = Signal()
        if self.with_pll:
            self._pll(m, sync, locked)
        else:
            m.d.comb += [sync.clk.eq(self.clk), locked.eq(1)]
        hold = Signal(range(256))  # cycles with a locked clock before the reset ends
        m.d.comb += start.clk.eq(sync.clk)
        with m.If(~locked):
            m.d.start += [hold.eq(0), power.eq(1)]
        with m.Elif(hold != 255):
            m.d.start += [hold.eq(hold + 1), power.eq(1)]
        with m.Else():
            m.d.start += power.eq(0)

        host = SerialHost(max(4, round(self.clock_hz / self.baud)))
        m.submodules.host = ResetInserter(power)(host)
        m.submodules.accelerator = self.top
        m.d.comb += self.top.power.eq(power)
        m.d.comb += [host.receive.eq(self.receive), self.send.eq(host.send), host.go.eq(self.go)]
        for name, member in AxiLite.members.items():
            ours, theirs = getattr(host.bus, name), self.top.lite[name]
            m.d.comb += theirs.eq(ours) if member.flow is Out else ours.eq(theirs)
        blink = Signal(27)
        m.d.sync += blink.eq(blink + 1)
        status = Signal(8)
        running = Signal()  # from the first command to the end
        with m.If(self.top.irq):
            m.d.sync += running.eq(0)
        with m.Elif(self.top.trace["started"].any()):
            m.d.sync += running.eq(1)
        busy = ~(self.receive & self.send)
        m.d.sync += status.eq(Cat(locked, busy, running, self.top.irq, blink[-4:]))
        m.d.comb += Cat(*self.leds).eq(status)
        return m

    def _pll(self, m: Module, sync: Any, locked: Any) -> None:
        before, feedback, divider = pll(self.clock_hz)
        clock = sync.clk
        m.submodules.pll = Instance(
            "EHXPLLL",
            ("p", "CLKI_DIV", before), ("p", "CLKFB_DIV", feedback), ("p", "CLKOP_DIV", divider),
            ("p", "CLKOP_CPHASE", divider - 1), ("p", "CLKOP_FPHASE", 0),
            ("p", "CLKOP_ENABLE", "ENABLED"), ("p", "FEEDBK_PATH", "CLKOP"),
            ("p", "OUTDIVIDER_MUXA", "DIVA"), ("p", "PLLRST_ENA", "DISABLED"),
            ("p", "INTFB_WAKE", "DISABLED"), ("p", "STDBY_ENABLE", "DISABLED"),
            ("p", "DPHASE_SOURCE", "DISABLED"),
            ("a", "FREQUENCY_PIN_CLKI", "25"),
            ("a", "FREQUENCY_PIN_CLKOP", f"{self.clock_hz / 1e6:g}"),
            ("a", "ICP_CURRENT", "12"), ("a", "LPF_RESISTOR", "8"),
            ("i", "CLKI", self.clk), ("i", "CLKFB", clock), ("i", "RST", C(0, 1)),
            ("i", "STDBY", C(0, 1)), ("i", "PHASESEL0", C(0, 1)), ("i", "PHASESEL1", C(0, 1)),
            ("i", "PHASEDIR", C(1, 1)), ("i", "PHASESTEP", C(1, 1)), ("i", "PHASELOADREG", C(1, 1)),
            ("i", "PLLWAKESYNC", C(0, 1)), ("i", "ENCLKOP", C(0, 1)),
            ("o", "CLKOP", clock), ("o", "LOCK", locked),
        )  # fmt: skip
