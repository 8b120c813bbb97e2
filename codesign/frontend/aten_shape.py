# SPDX-License-Identifier: Apache-2.0
"""ATen operators that move data without computing."""

from __future__ import annotations

from codesign.frontend.aten import Args, Result, handles, number_list
from codesign.frontend.lowering import Lowering

_END = 2**63 - 1


@handles("view.default", "reshape.default", "_unsafe_view.default")
def _reshape(lower: Lowering, a: Args) -> Result:
    return lower.reshape(a.tensor("self"), a["size"] if "size" in a.values else a["shape"])


@handles("flatten.using_ints")
def _flatten(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    shape = lower.shape(x)
    first, last = lower.axis(x, a["start_dim"]), lower.axis(x, a["end_dim"])
    return lower.reshape(x, (*shape[:first], -1, *shape[last + 1 :]))


@handles("unflatten.int")
def _unflatten(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    shape, axis = lower.shape(x), lower.axis(x, a["dim"])
    return lower.reshape(x, (*shape[:axis], *a["sizes"], *shape[axis + 1 :]))


@handles("squeeze.default", "squeeze.dim", "squeeze.dims")
def _squeeze(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    shape = lower.shape(x)
    dims = range(len(shape)) if "dim" not in a.values else number_list(a["dim"])
    gone = {lower.axis(x, d) for d in dims}
    return lower.reshape(x, [n for i, n in enumerate(shape) if n != 1 or i not in gone])


@handles("unsqueeze.default")
def _unsqueeze(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    shape = lower.shape(x)
    at = a["dim"] % (len(shape) + 1)
    return lower.reshape(x, (*shape[:at], 1, *shape[at:]))


@handles("permute.default")
def _permute(lower: Lowering, a: Args) -> Result:
    return lower.transpose(a.tensor("self"), a["dims"])


@handles("transpose.int")
def _transpose(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    perm = list(range(len(lower.shape(x))))
    first, second = lower.axis(x, a["dim0"]), lower.axis(x, a["dim1"])
    perm[first], perm[second] = second, first
    return lower.transpose(x, perm)


@handles("t.default")
def _t(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    return lower.transpose(x, (1, 0)) if len(lower.shape(x)) == 2 else x


@handles("expand.default")
def _expand(lower: Lowering, a: Args) -> Result:
    x, want = a.tensor("self"), list(a["size"])
    shape = lower.shape(x)
    new = len(want) - len(shape)
    return lower.broadcast(x, [shape[i - new] if n == -1 else n for i, n in enumerate(want)])


@handles("expand_as.default")
def _expand_as(lower: Lowering, a: Args) -> Result:
    return lower.broadcast(a.tensor("self"), lower.shape(a.tensor("other")))


@handles("repeat.default")
def _repeat(lower: Lowering, a: Args) -> Result:
    x, counts = a.tensor("self"), list(a["repeats"])
    shape = lower.shape(x)
    x = lower.reshape(x, (*(1,) * (len(counts) - len(shape)), *shape), "unsqueezed")
    for axis, count in enumerate(counts):
        x = lower.concat([x] * count, axis)
    return x


@handles("cat.default")
def _cat(lower: Lowering, a: Args) -> Result:
    return lower.concat(a.arrays("tensors"), a["dim"])


@handles("stack.default")
def _stack(lower: Lowering, a: Args) -> Result:
    parts = a.arrays("tensors")
    shape = lower.shape(parts[0])
    at = a["dim"] % (len(shape) + 1)
    longer = (*shape[:at], 1, *shape[at:])
    return lower.concat([lower.reshape(x, longer, f"part{i}") for i, x in enumerate(parts)], at)


@handles("split.Tensor", "chunk.default")
def _split(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    size = lower.shape(x)[lower.axis(x, a["dim"])]
    step = -(-size // a["chunks"]) if "chunks" in a.values else a["split_size"]
    return lower.split(x, [min(step, size - at) for at in range(0, size, step)], a["dim"])


@handles("split_with_sizes.default", "split.sizes")
def _split_sizes(lower: Lowering, a: Args) -> Result:
    sizes = a["split_sizes"] if "split_sizes" in a.values else a["split_size"]
    return lower.split(a.tensor("self"), sizes, a["dim"])


@handles("unbind.int")
def _unbind(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    count = lower.shape(x)[lower.axis(x, a["dim"])]
    return [lower.select(x, a["dim"], i) for i in range(count)]


@handles("select.int")
def _select(lower: Lowering, a: Args) -> Result:
    return lower.select(a.tensor("self"), a["dim"], a["index"])


@handles("slice.Tensor")
def _slice(lower: Lowering, a: Args) -> Result:
    start = 0 if a["start"] is None else a["start"]
    stop = _END if a["end"] is None else a["end"]
    return lower.slice(a.tensor("self"), a["dim"], start, stop, a["step"])


@handles("narrow.default")
def _narrow(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    start = a["start"] % lower.shape(x)[lower.axis(x, a["dim"])]
    return lower.slice(x, a["dim"], start, start + a["length"])


def _pads(lower: Lowering, x: str, pads: list[int]) -> tuple[list[int], list[int]]:
    """Torch lists pairs from the last axis on."""
    rank = len(lower.shape(x))
    before, after = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return before, after


@handles("pad.default")
def _pad(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    return lower.pad(x, *_pads(lower, x, a["pad"]), a["mode"], float(a["value"] or 0.0))


@handles("constant_pad_nd.default")
def _constant_pad(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    return lower.pad(x, *_pads(lower, x, a["pad"]), "constant", float(a["value"]))


@handles("reflection_pad2d.default", "reflection_pad1d.default")
def _reflection_pad(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    return lower.pad(x, *_pads(lower, x, a["padding"]), "reflect", 0.0)


@handles("replication_pad2d.default", "replication_pad1d.default")
def _replication_pad(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self")
    return lower.pad(x, *_pads(lower, x, a["padding"]), "edge", 0.0)


@handles("pixel_shuffle.default")
def _pixel_shuffle(lower: Lowering, a: Args) -> Result:
    x, r = a.tensor("self"), a["upscale_factor"]
    n, c, h, w = lower.shape(x)
    parts = lower.reshape(x, (n, c // r**2, r, r, h, w), "parts")
    mixed = lower.transpose(parts, (0, 1, 4, 2, 5, 3), "mixed")
    return lower.reshape(mixed, (n, c // r**2, h * r, w * r))
