# SPDX-License-Identifier: Apache-2.0
"""The memory of the cycle model, burst by burst: against the controller, and by hand."""

from __future__ import annotations

import random
from collections import deque
from fractions import Fraction

import pytest

from codesign.targets.fpga.isa import Command, Dest, Unit
from codesign.targets.fpga.model.bursts import Part, Shape, cut, parts, residual_runs
from codesign.targets.fpga.model.cycles import CycleModel, Fixed
from codesign.targets.fpga.model.dispatch import Dispatcher
from codesign.targets.fpga.model.memory import Memory
from codesign.targets.fpga.model.readers import Load, Loader, Residual
from codesign.targets.fpga.model.results import Making, Source
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.memory import AxiMemory
from tests.fpga.sim.test_simulation import SMALL

Burst = tuple[int, int, int]
"""(cycle of its address or first beat, address, beats)."""


def controlled(
    dram: Dram, port: int, reads: list[Burst], writes: list[Burst], cycles: int
) -> tuple[list[int], list[int]]:
    """Cycles in which ``AxiMemory`` reads each beat, and those of its responses."""
    pins: dict[str, int] = {}
    memory = AxiMemory(
        bytearray(1 << 16), dram, 8 * port, pins.__setitem__, lambda name: pins.get(name, 0)
    )
    asked, given = deque(reads), deque(writes)
    beats = deque((first + k, k == n - 1) for first, _, n in writes for k in range(n))
    read, responses = [], []
    for cycle in range(cycles):
        before = len(memory.slot)
        memory.drive()
        read += [cycle] * (len(memory.slot) - before)
        while memory.responses and memory.responses[0] <= cycle:
            responses.append(memory.responses.popleft())
        pins |= {"arvalid": 0, "awvalid": 0, "wvalid": 0, "rready": 1, "wdata": 0, "wstrb": 0}
        if asked and asked[0][0] == cycle:
            _, address, count = asked.popleft()
            pins |= {"arvalid": 1, "araddr": address, "arlen": count - 1}
        if given and given[0][0] == cycle + 1:
            _, address, count = given.popleft()
            pins |= {"awvalid": 1, "awaddr": address, "awlen": count - 1}
        if beats and beats[0][0] == cycle:
            assert pins["wready"]
            pins |= {"wvalid": 1, "wlast": beats.popleft()[1]}
        memory.sample()
    return read, responses


def modelled(
    dram: Dram, port: int, reads: list[Burst], writes: list[Burst], cycles: int
) -> tuple[list[tuple[int, int, int]], list[int]]:
    """The same of the model: (beats, first cycle, last cycle) of what it reads at once."""
    read: list[tuple[int, int, int]] = []
    responses: list[int] = []
    memory = Memory(
        dram, port, lambda _, beats, first, last, over: read.append((beats, first, last)),
        responses.append,
    )  # fmt: skip
    events = [(cycle, 0, address, beats) for cycle, address, beats in reads]
    events += [(first - 1, 1, address, beats) for first, address, beats in writes]
    for cycle, write, address, beats in sorted(events):
        while memory.advance(cycle):
            pass
        if write:
            memory.write(cycle + 1, beats)
            memory.pay(address, beats)
        else:
            memory.read(cycle, address, beats, None)
    while memory.advance(cycles - 1):
        pass
    return read, responses


def generated(rng: random.Random, port: int, gaps: tuple[int, ...], after: bool) -> list[Burst]:
    found, cycle = [], 5
    for _ in range(40):
        beats = rng.randint(1, 16)
        address = rng.randrange(200) * 16 * port + rng.randint(0, 16 - beats) * port
        found.append((cycle, address, beats))
        cycle += rng.choice(gaps) + (beats if after else 0)
    return found


@pytest.mark.parametrize("seed", range(24))
def test_moves_beats_when_the_controller_does(seed: int) -> None:
    """Every beat and response in the same cycle: both widths, rates under and over the port's,
    refresh, turn-around, batches, granules."""
    rng = random.Random(seed)
    port = rng.choice([8, 16])
    rates = [Fraction(10687, 993), Fraction(11478, 917), Fraction(16), Fraction(33, 2)]
    dram = Dram(
        latency=rng.choice([5, 60]), bytes_per_cycle=rng.choice(rates),
        granule=rng.choice([1, 16, 64]), refresh_interval=rng.choice([0, 300]), refresh_cycles=45,
        turnaround=rng.choice([0, 8]), write_latency=rng.choice([2, 30]),
        batch=rng.choice([256, 2048]), outstanding=64,
    )  # fmt: skip
    reads = generated(rng, port, (1, 2, 20, 60, 60), False)
    writes = generated(rng, port, (0, 0, 1, 40, 90), True)
    beats, responses = controlled(dram, port, reads, writes, 6000)
    pieces, guessed = modelled(dram, port, reads, writes, 6000)
    assert guessed == responses
    at = 0
    for count, first, last in pieces:
        assert (first, last) == (beats[at], beats[at + count - 1])
        at += count
    assert at == len(beats) == sum(n for _, _, n in reads)


def test_a_write_waits_for_the_batch_of_reads() -> None:
    """By hand: a beat a cycle; 32 beats are due from cycle 10 on and a write of 8 from 13 on. It
    waits for a batch of 16 beats (256 bytes), both turns take 4 cycles, the response 3."""
    dram = Dram(10, Fraction(16), turnaround=4, write_latency=3, batch=256)
    reads, writes = [(0, 0, 16), (1, 256, 16)], [(12, 4096, 8)]
    read, responses = modelled(dram, 16, reads, writes, 100)
    moved = [(first, last) for count, first, last in read for _ in range(count)]
    # four beats' budget of the idle cycles before: the 16th is read in cycle 10 + 12
    assert (moved[0][0], moved[15][1]) == (10, 22)
    # turned in cycle 23, four beats at once in cycle 27
    assert responses == [27 + 4 + 3]
    # turned in cycle 32, the same
    assert (moved[16][0], moved[31][1]) == (36, 48)
    assert len(moved) == 32


def test_bursts_end_at_multiples_of_the_longest() -> None:
    """By hand: 40 words from word 5 on, 32 words a burst at 16 bytes a beat; the first beat holds
    one of the words."""
    assert cut(5 * 8, 40, 16) == [(32, 14, 27), (256, 7, 13)]


def test_a_load_alone() -> None:
    """By hand, 16 bytes a cycle, latency 20. The command's address is out in cycle 4, four of its 8
    beats come at once in cycle 24, they are taken in 25 .. 32; its 4 words are given on in cycles
    28 .. 31 and are there 4 later. A load of 8 parameters: a run, a burst, its address, each a
    cycle (39); data from cycle 59 on, at the loader in 61 .. 68, in the buffer two later."""
    load = Command(Unit.LOAD, {"dest": int(Dest.DENSE_PARAM), "address": 4096, "count": 8})
    run = CycleModel(SMALL, Dram(latency=20)).run([load, Command(Unit.END, {"wait_load": 1})])
    assert SMALL.port_bits == 64
    (span,) = run.spans
    assert (span.start, span.end) == (35, 70)
    assert run.total == 70 + Fixed().end


def test_a_run_after_another_turns_the_memory_first() -> None:
    """The run before ended with a write: the first read comes ``turnaround`` cycles later."""
    load = Command(Unit.LOAD, {"dest": int(Dest.DENSE_PARAM), "address": 4096, "count": 8})
    model = CycleModel(SMALL, Dram(latency=20, turnaround=4))
    commands = [load, Command(Unit.END, {"wait_load": 1})]
    first, later = (model.run(commands, again=again).spans[0] for again in (False, True))
    assert (later.start - first.start, later.end - first.end) == (4, 4)


@pytest.mark.parametrize(("wide", "po"), [(0, 8), (1, 8), (0, 32), (1, 32)])
def test_results_and_residuals_are_cut_without_loss(wide: int, po: int) -> None:
    """Bursts of a depthwise command cover its results, and no others, in the order of time."""
    shape = Shape(px=4, pixels=1, halves=1, blocks=po // 8, port=16)
    v = {
        "taps": 9, "groups": -(-6 // (po // 8)), "rows": 3, "width": 7, "steps": 2, "blocks": 6,
        "address": 1024, "block_step": 3 * 7 * 8, "wide": wide, "res_address": 0,
    }  # fmt: skip
    found = list(parts(v, shape, shape.least(False), False))
    assert [part.last for part in found] == [False] * (len(found) - 1) + [True]
    assert sum(part.beats for part in found) == sum(part.beats_made for part in found)
    assert found[-1].words == 6 * 3 * 7
    covered = {part.address + 16 * k for part in found for k in range(part.beats)}
    size = 6 * 3 * 7 * 8 * (1 + wide)
    assert covered == set(range(1024, 1024 + size, 16))
    runs = residual_runs(v, shape)
    assert sum(words for _, words in runs) == 6 * 3 * 7
    steps = [part.time for part in found]
    assert steps == sorted(steps)


def test_results_of_an_odd_row_come_by_entries() -> None:
    """By hand: 7 pixels of a step in entries of 2, so 18 pixels are 10 entries. A burst that begins
    at byte 112 of 256 ends with them; the last of 49 pixels stands alone in its beat."""
    shape = Shape(px=7, pixels=2, halves=1, blocks=0, port=16)
    assert [shape.entries(n) for n in (0, 1, 2, 6, 7, 8, 18, 49)] == [0, 1, 1, 3, 4, 5, 10, 28]
    v = {"rows": 1, "width": 49, "blocks": 1, "address": 112, "block_step": 0}
    found = [(p.entries, p.time, p.beats, p.half) for p in parts(v, shape, 0, False) if p.beats]
    assert found == [(10, 10, 9, 0), (28, 28, 16, 1)]


def test_dropped_blocks_leave_by_themselves() -> None:
    """By hand: steps of two blocks, the third group's second one is dropped: its four entries are
    there with their own step, not with the next one."""
    shape = Shape(px=4, pixels=1, halves=1, blocks=2, port=16)
    v = {"taps": 9, "groups": 2, "rows": 1, "width": 8, "steps": 2, "blocks": 3, "address": 0,
         "block_step": 64}  # fmt: skip
    found = [(p.entries, p.time, p.passes) for p in parts(v, shape, 8, False)]
    assert found[-4:] == [(20, 31, 4), (24, 35, 0), (28, 40, 4), (32, 44, 0)]


@pytest.mark.parametrize(("apart", "taken", "more"), [(8, 10, 0), (9, 9, 2)])
def test_a_queue_does_not_see_the_last_words(apart: int, taken: int, more: int) -> None:
    """By hand: 7 words of a depthwise command, the first of ten is in the unit's register. Eight
    more fill 56 of 64 words, and the tenth asks for 8 when 55 are counted, if it comes at once."""
    commands = [Command(Unit.DEPTHWISE, {})] * 12
    wishes: list[int] = []
    dispatcher = Dispatcher(commands, Fixed(), 8, wishes.append, lambda unit, cycle: None)
    dispatcher.free[Unit.DEPTHWISE] = None
    for k in range(11):
        dispatcher.came(apart * k, apart * k + 7)
    assert len(wishes) == taken
    dispatcher.free[Unit.DEPTHWISE] = 0
    dispatcher.wake(Unit.DEPTHWISE, 200)
    assert dispatcher.take(Unit.DEPTHWISE, 200) == 0
    assert len(wishes) == taken + more  # the unit's register is filled from the queue


class Watched:
    """Owner of a way out that notes nothing but when commands' results have left."""

    def __init__(self) -> None:
        self.over: list[int] = []

    def made(self, source: int, making: Making, last: int) -> None:
        pass

    def placed(self, source: int, first: int, last: int) -> None:
        pass

    def left(self, source: int, last: int) -> None:
        self.over.append(last)


def way_out(made: list[Part], pixels: int) -> tuple[Source, list[int], Watched]:
    """A way out to a port of 16 bytes with a command's results; cycles from which its bursts may
    go."""
    closed: list[int] = []
    owner = Watched()
    residual = Residual(16, lambda _: None, lambda _: None, lambda *_: None)
    source = Source(0, lambda _, cycle, *__: closed.append(cycle), residual, owner, 4)
    shape = Shape(4, pixels, 1, 0, 16)
    source.begin(Making(0, iter(made), 0, 20, shape, {"width": 64}))
    return source, closed, owner


@pytest.mark.parametrize(("pixels", "units"), [(2, 12), (1, 22)])
def test_results_wait_behind_a_burst_that_cannot_be_closed(pixels: int, units: int) -> None:
    """By hand: bursts of one beat, of one or two units of results, and a port that takes none.
    Seven are closed, the eighth waits; behind it a beat in its slice, one in the packer, two units
    in theirs. A burst that goes in cycle 200 lets the eighth be closed in 202, the slice move in
    203 (two units a beat: the packer take a unit), a unit leave the queue in 204."""
    pack = 2 // pixels
    made = [
        Part(10 + pack * n, 10 + pack * (n - 1), 0, 0, pack * n, 2 * n, pack, 16 * n, 1,
             beats_made=1, last=n == 30)
        for n in range(1, 31)
    ]  # fmt: skip
    source, closed, _ = way_out(made, pixels)
    assert source.units == units
    assert closed == [34 + pack * n for n in range(1, units // pack + 1)]
    source.burst_sent(1, 200, 203)
    assert source.units == units + pack
    assert source.way == 204 + pack - 1


def test_dropped_results_leave_one_a_cycle() -> None:
    """Of a block that is not there; the results behind them come as many cycles later."""
    first = Part(8, 0, 0, 0, 8, 16, 8, 0, 8, beats_made=8)
    dropped = Part(12, 8, 0, 0, 12, 16, 0, dropped=4)
    last = Part(14, 12, 0, 0, 14, 20, 2, 256, 2, beats_made=2, last=True)
    _, closed, owner = way_out([first, dropped, last], 2)
    assert owner.over == [34]
    assert closed == [32, 38]


def test_the_loader_takes_two_beats_ahead() -> None:
    """By hand: eight beats from cycle 100 on are placed from 102 to 109; the next command's beat
    comes in 108 and is placed in 112, once the last one is over and two cycles of preparation are;
    it is taken from the port in 109, as two wait before the loader."""
    loader = Loader(16, lambda _: None, lambda: None, lambda _: None, lambda *_: 0.0)
    loader.begin(Load(50, 2, -1), 1, [(0, 16)], 8)
    loader.begin(Load(60, 2, -1), 1, [(4096, 2)], 1)
    taken = loader.take(8, 100, 107, 0)
    assert (taken, loader.placed) == (108, 109)
    assert loader.take(1, 108, 108, taken) == 109
    assert loader.placed == 112
