# SPDX-License-Identifier: Apache-2.0
"""Loads in NumPy and plain loops, as ``docs/accelerator.md`` words them."""

from __future__ import annotations

from typing import Any

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.ports import weights_of_word


def load_weights(memory: bytes, values: dict[str, int], engine: Engine, target: Any) -> None:
    """Words of weights to ``target`` (words, weights)."""
    bits, word = values["bits"], weights_of_word(engine)
    for n in range(values["count"]):
        for k in range(word):
            at = (n * word + k) * bits
            raw = memory[values["address"] + at // 8] >> at % 8 & (1 << bits) - 1
            target[values["base"] + n, k] = raw - (1 << bits) * (raw >> bits - 1)


def load_items(memory: bytes, values: dict[str, int], target: dict[int, int]) -> None:
    """Parameters or taps."""
    for n in range(values["count"]):
        at = values["address"] + 8 * n
        target[values["base"] + n] = int.from_bytes(memory[at : at + 8], "little")


def load_activations(
    memory: bytes, values: dict[str, int], engine: Engine, target: dict[tuple[int, int, int], int]
) -> None:
    """Blocks to {(memory, word, lane): data}; nibbles packed."""
    v = values
    nibbles = v.get("place_nibbles", 0)
    lanes = engine.px * (2 if nibbles else 1)
    channels = engine.pi if engine.kind == "dense" else engine.po
    blocks_of_word = channels // 8
    stride = v["place_stride"]
    mask = engine.activation.depth * engine.activation.banks - 1
    repeat_x, repeat_y = max(1, v.get("repeat_x", 0)), max(1, v.get("repeat_y", 0))
    for b in range(v["blocks"]):
        n = v["place_block"] + b
        for y in range(v["rows"] * repeat_y):
            for x in range(v["width"] * repeat_x):
                source = (y // repeat_y) * v["width"] + x // repeat_x
                at = v["address"] + b * v["block_step"] + source * 8
                block = memory[at : at + 8]
                q, r = divmod(x, stride)
                word = (
                    v["base"] + y * v["place_row_words"] + r * v["place_residue_words"]
                    + (q // lanes) * v["place_group"]
                )  # fmt: skip
                if channels == 4:
                    for half in range(2):
                        part = block[4 * half : 4 * half + 4]
                        place = (q % lanes, word + 2 * n + half & mask, 0)
                        target[place] = _pack(part, nibbles)
                else:
                    place = (q % lanes, word + n // blocks_of_word & mask, n % blocks_of_word)
                    target[place] = _pack(block, nibbles)


def _pack(part: bytes, nibbles: int) -> int:
    if not nibbles:
        return int.from_bytes(part, "little")
    value = 0
    for k, byte in enumerate(part):
        value |= (byte & 15) << 4 * k
    return value
