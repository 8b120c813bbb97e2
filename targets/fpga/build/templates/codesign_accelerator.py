# SPDX-License-Identifier: Apache-2.0
"""PYNQ driver of an accelerator made by codesign: NumPy and PYNQ are all it needs.

On the board, with the bitstream, its .hwh, image.bin and layout.json in one folder:

    from codesign_accelerator import CodesignAccelerator
    network = CodesignAccelerator.on_board("design.bit")
    (scores,) = network(image)          # integers, in the order of layout.json
"""

import json
import time
from pathlib import Path

import numpy as np

IDENTITY, CONTROL, STATUS, INTERRUPT, COMMANDS = 0x00, 0x04, 0x08, 0x0C, 0x10
BASE_LOW, BASE_HIGH, WATCHDOG, CYCLES_LOW, CYCLES_HIGH = 0x14, 0x18, 0x1C, 0x20, 0x24
FINISHED_LOW, FINISHED_HIGH, WAITING = 0x28, 0x2C, 0x40
MAGIC = 0xC0DE5100
RUNNING, DONE, BUS_ERROR, BAD_COMMAND, STUCK = 1, 2, 4, 8, 16
UNITS = ("load", "dense", "depthwise", "drain")


class AcceleratorError(RuntimeError):
    """The accelerator gave up; the message says what it was waiting for."""


class CodesignAccelerator:
    """One network on one accelerator.

    mmio: an object with read(offset) and write(offset, value) of 32-bit registers.
    allocate: called with (bytes,) and dtype; gives an array of contiguous memory with
    device_address, flush() and invalidate(), as pynq.allocate does.
    """

    def __init__(self, mmio, allocate, folder="."):
        folder = Path(folder)
        self.mmio = mmio
        self.layout = json.loads((folder / "layout.json").read_text())
        identity = mmio.read(IDENTITY)
        if identity & 0xFFFFFF00 != MAGIC:
            raise AcceleratorError(f"no codesign accelerator at this address: read {identity:#x}")
        image = np.fromfile(folder / "image.bin", dtype=np.uint8)
        size = max(self.layout["memory_bytes"], len(image))
        self.memory = allocate((size,), dtype=np.uint8)
        self.memory[:] = 0
        self.memory[: len(image)] = image
        self.memory.flush()
        base = getattr(self.memory, "device_address", None)
        self.base = self.memory.physical_address if base is None else base
        self.cycles = 0

    @classmethod
    def on_board(cls, bitfile, folder=None):
        """Load the bitstream with PYNQ and find the accelerator in it."""
        from pynq import MMIO, Overlay, allocate

        overlay = Overlay(str(bitfile))
        found = [ip for name, ip in overlay.ip_dict.items() if "accelerator" in name]
        if len(found) != 1:
            raise AcceleratorError(f"{bitfile} holds {len(found)} accelerators, expected 1")
        self = cls(MMIO(found[0]["phys_addr"], 4096), allocate, folder or Path(bitfile).parent)
        self.overlay = overlay
        return self

    def write(self, name, value):
        """Put a tensor (row-major, integers) into the accelerator's memory."""
        place = self.layout["values"][name]
        blocks = -(-place["channels"] // 8)
        pixels = place["rows"] * place["columns"]
        wide = _bytes(place) == 2
        full = np.zeros((blocks * 8, pixels), np.int16 if wide else np.uint8)
        flat = np.asarray(value).reshape(place["channels"], pixels)
        full[: place["channels"]] = flat.astype(np.int64).astype(full.dtype)
        data = full.reshape(blocks, 8, pixels).transpose(0, 2, 1)
        raw = np.ascontiguousarray(data).astype(data.dtype.newbyteorder("<")).tobytes()
        at = place["address"]
        self.memory[at : at + len(raw)] = np.frombuffer(raw, np.uint8)
        self.memory.flush()

    def read(self, name):
        """A tensor out of the accelerator's memory, as [channels, rows, columns]."""
        self.memory.invalidate()
        place = self.layout["values"][name]
        blocks = -(-place["channels"] // 8)
        pixels = place["rows"] * place["columns"]
        size = _bytes(place)
        kind = ("<i" if place["type"].startswith("s") else "<u") + str(size)
        raw = np.asarray(self.memory[place["address"] :][: blocks * pixels * 8 * size])
        data = np.frombuffer(raw.tobytes(), kind).reshape(blocks, pixels, 8).transpose(0, 2, 1)
        image = data.reshape(blocks * 8, pixels)[: place["channels"]]
        return image.reshape(place["channels"], place["rows"], place["columns"])

    def run(self, segment, timeout=10.0):
        """Run one command list; ``self.cycles`` is how many clock cycles it took."""
        step = self.layout["segments"][segment]
        if step["kind"] != "accelerator":
            raise AcceleratorError(f"segment {segment} runs on the ARM cores: {step['nodes']}")
        write = self.mmio.write
        write(COMMANDS, step["address"])
        write(BASE_LOW, self.base & 0xFFFFFFFF)
        write(BASE_HIGH, self.base >> 32)
        write(STATUS, DONE | BUS_ERROR | BAD_COMMAND | STUCK)
        write(CONTROL, 1)
        until = time.monotonic() + timeout
        status = self.mmio.read(STATUS)
        while not status & DONE:
            if time.monotonic() > until:
                raise AcceleratorError(f"not done after {timeout} s; {self.state()}")
            status = self.mmio.read(STATUS)
        self.cycles = self.mmio.read(CYCLES_LOW) | self.mmio.read(CYCLES_HIGH) << 32
        for bit, what in ((BUS_ERROR, "a bus error"), (BAD_COMMAND, "an unknown command"),
                          (STUCK, "no progress")):
            if status & bit:
                state = self.state()
                write(CONTROL, 2)
                raise AcceleratorError(f"the run was given up: {what}; {state}")

    def state(self):
        """Finished commands of every unit, and which wait."""
        low, high = self.mmio.read(FINISHED_LOW), self.mmio.read(FINISHED_HIGH)
        counts = (low & 0xFFFF, low >> 16, high & 0xFFFF, high >> 16)
        waiting = self.mmio.read(WAITING)
        held = [unit for at, unit in enumerate(UNITS) if waiting >> 4 * at & 15]
        done = ", ".join(f"{unit} {count}" for unit, count in zip(UNITS, counts))
        return f"finished commands: {done}; waiting: {', '.join(held) or 'none'}"

    def __call__(self, *inputs):
        """Run a network that is wholly on the accelerator; returns its outputs."""
        names = self.layout["inputs"]
        if len(inputs) != len(names):
            raise AcceleratorError(f"the network takes {len(names)} inputs: {', '.join(names)}")
        arm = [s["nodes"] for s in self.layout["segments"] if s["kind"] != "accelerator"]
        if arm:
            raise AcceleratorError(
                f"these operators run on the ARM cores, between run(segment) calls: {arm}"
            )
        for name, value in zip(names, inputs):
            self.write(name, value)
        cycles = 0
        for segment in range(len(self.layout["segments"])):
            self.run(segment)
            cycles += self.cycles
        self.cycles = cycles
        return tuple(self.read(name) for name in self.layout["outputs"])


def _bytes(place):
    return 2 if int("".join(filter(str.isdigit, place["type"]))) > 8 else 1
