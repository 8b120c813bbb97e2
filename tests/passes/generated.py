# SPDX-License-Identifier: Apache-2.0
"""Generated graphs full of what the passes look for: branches, constants, no-ops, odd forms."""

from __future__ import annotations

from collections.abc import Callable

from codesign.ir import Graph, ops
from tests.passes.checks import Net


def pass_graph(seed: int, blocks: int = 5) -> Graph:
    """About ``blocks`` blocks on one image input; every seed is legal, nothing is filtered."""
    return _Maker(seed).network(blocks)


class _Maker(Net):
    def __init__(self, seed: int) -> None:
        super().__init__(f"generated{seed}", seed)

    def pick(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def shape(self, x: str) -> tuple[int, ...]:
        return self.builder.type(x).shape

    def network(self, blocks: int) -> Graph:
        x = self.input(self.pick(1, 2), self.pick(1, 5), self.pick(5, 9), self.pick(5, 9))
        made: list[Callable[[str], str]] = [
            self.branches, self.branches, self.affine, self.padded, self.average, self.chain,
            self.layout, self.channels_last, self.product, self.activation, self.residual,
            self.noops, self.global_pool, self.normed,
        ]  # fmt: skip
        values = [x]
        for _ in range(blocks):
            at = values[self.pick(max(0, len(values) - 2), len(values) - 1)]
            values.append(self.squash(made[self.pick(0, len(made) - 1)](at)))
        loose = [v for v, users in self.finish(values[-1]).users.items() if not users]
        return self.finish(*(v for v in loose if v not in self.builder._constants))

    def squash(self, x: str) -> str:
        """Keep magnitudes near one so that no sum drowns another."""
        if self.pick(0, 2):
            return x
        return self.add(ops.Activation("tanh"), x, name="squash")

    def branches(self, x: str) -> str:
        channels = self.shape(x)[1]
        stride = self.pick(1, 2)
        keep = self.pick(0, 1) == 1
        outputs = channels if keep else self.pick(1, 4)
        terms = [
            self.branch(x, outputs, stride, keep and stride == 1) for _ in range(self.pick(2, 4))
        ]
        if self.pick(0, 1):
            terms.append(self.random(outputs, 1, 1, name="offset"))
        order = self.rng.permutation(len(terms) - 1)
        total = terms[int(order[0])]
        for i in [*map(int, order[1:]), len(terms) - 1]:
            total = self.add(ops.Add(), total, terms[i], name="sum")
        return self.relu(total) if self.pick(0, 1) else total

    def branch(self, x: str, outputs: int, stride: int, may_keep: bool) -> str:
        channels = self.shape(x)[1]
        choice = self.pick(0, 4 if may_keep else 2)
        if choice == 4:
            y = x
        elif choice == 3:
            pool = ops.Pool2d("avg", (3, 3), (1, 1), (1, 1, 1, 1))
            y = self.add(pool, x, name="pool")
        else:
            groups = channels if outputs == channels and self.pick(0, 2) == 0 else 1
            kernel, dilation = ((1, 1), (3, 1), (3, 2), (5, 1))[self.pick(0, 3)]
            y = self.conv(
                x, outputs, kernel, "branch", bias=self.pick(0, 1) == 1, groups=groups,
                stride=stride, dilation=dilation,
            )  # fmt: skip
        if self.pick(0, 1):
            y = self.norm(y, "norm")
        if self.pick(0, 3) == 0:
            y = self.add(ops.Mul(), y, self.random(outputs, 1, 1, name="factor"), name="scaled")
        return y

    def normed(self, x: str) -> str:
        y = self.norm(self.conv(x, self.pick(1, 5), 3, "conv", bias=self.pick(0, 1) == 1), "norm")
        return self.relu(y) if self.pick(0, 1) else y

    def affine(self, x: str) -> str:
        channels = self.shape(x)[1]
        for _ in range(self.pick(1, 3)):
            shape = ((), (1,), (channels, 1, 1), (1, channels, 1, 1))[self.pick(0, 3)]
            value = self.random(*shape, name="value")
            if self.pick(0, 2) == 0:
                value = self.add(ops.Activation("tanh"), value, name="computed")
            op = (ops.Add(), ops.Mul())[self.pick(0, 1)]
            x = self.add(op, *((x, value) if self.pick(0, 1) else (value, x)), name="affine")
        after = self.pick(0, 2)
        if after == 0:
            return x
        kernel = 3 if min(self.shape(x)[2:]) >= 3 else 1
        return self.conv(x, self.pick(1, 4), kernel, "conv", padding=after - 1, bias=after == 1)

    def padded(self, x: str) -> str:
        before, after = (0, 0, self.pick(0, 2), 1), (0, 0, self.pick(0, 1), self.pick(0, 2))
        value = (0.0, 0.0, 0.5)[self.pick(0, 2)]
        if min(self.shape(x)[2:]) < 3:
            x = self.add(ops.Resize((5, 4)), x, name="wide")
        y = self.add(ops.Pad(before, after, value=value), x, name="pad")
        if self.pick(0, 1):
            return self.conv(y, self.pick(1, 4), 3, "conv", padding=self.pick(0, 1))
        kind = ("avg", "max", "sum")[self.pick(0, 2)]
        return self.add(ops.Pool2d(kind, (3, 3), (2, 1)), y, name="pool")  # type: ignore[arg-type]

    def average(self, x: str) -> str:
        padding = (self.pick(0, 1), self.pick(0, 1), self.pick(0, 1), self.pick(0, 1))
        stride = (self.pick(1, 2), self.pick(1, 2))
        pool = ops.Pool2d("avg", (2, 3), stride, padding, count_include_pad=False)
        wide = (ops.Resize((6, 7)), ops.Resize((5, 8), "bilinear", "half_pixel"))[self.pick(0, 1)]
        return self.add(pool, self.add(wide, x, name="wide"), name="average")

    def chain(self, x: str) -> str:
        """conv, depthwise, conv with activations that let scales through, or do not."""
        kinds: tuple[ops.ActivationKind, ...] = ("relu", "leaky_relu", "relu6", "hardswish")
        c = self.pick(2, 6)
        y = self.conv(x, c, 1, "expand", bias=True)
        y = self.add(ops.Activation(kinds[self.pick(0, 3)], 0.1), y, name="act")
        y = self.conv(y, c, 3, "depthwise", groups=c, bias=self.pick(0, 1) == 1)
        y = self.add(ops.Activation(kinds[self.pick(0, 1)], 0.1), y, name="act")
        return self.conv(y, self.pick(1, 4), 1, "project")

    def residual(self, x: str) -> str:
        channels = self.shape(x)[1]
        y = self.relu(self.conv(x, channels, 3, "first", bias=True))
        y = self.conv(y, channels, 3, "second")
        shortcut = x if self.pick(0, 1) else self.conv(x, channels, 1, "shortcut", bias=True)
        pair = (y, shortcut) if self.pick(0, 1) else (shortcut, y)
        return self.relu(self.add(ops.Add(), *pair, name="join"))

    def layout(self, x: str) -> str:
        n, c, h, w = self.shape(x)
        y = self.add(ops.Transpose((0, 2, 3, 1)), x, name="there")
        y = self.add(ops.Reshape((n * h, w, c)), y, name="rows")
        y = self.add(ops.Reshape((n, h, w, c)), y, name="image")
        if self.pick(0, 1):
            y = self.relu(self.relu(y))
        return self.add(ops.Transpose((0, 3, 1, 2)), y, name="back")

    def channels_last(self, x: str) -> str:
        y = self.add(ops.Transpose((0, 2, 3, 1)), x, name="last")
        if self.pick(0, 1):
            y = self.relu(y)
        y = self.linear(y, self.pick(1, 5), "mlp", bias=self.pick(0, 1) == 1)
        return self.add(ops.Transpose((0, 3, 1, 2)), y, name="first")

    def product(self, x: str) -> str:
        n, c, h, w = self.shape(x)
        y = self.add(ops.Reshape((n, c, h * w)), x, name="flat")
        matrix = self.random(*(1,) * self.pick(0, 1), h * w, h * w, name="matrix")
        y = self.add(ops.MatMul(), y, matrix, name="matmul")
        if self.pick(0, 1):
            y = self.add(ops.Mul(), y, self.constant(0.25, shape=(), name="scale"), name="scaled")
        return self.add(ops.Reshape((n, c, h, w)), y, name="image")

    def activation(self, x: str) -> str:
        three, sixth = self.constant(3, shape=()), self.constant(1 / 6, shape=())
        shifted = self.add(ops.Add(), x, three, name="shifted")
        gate = self.add(ops.Activation("relu6"), shifted, name="gate")
        choice = self.pick(0, 3)
        if choice == 0:
            gate = self.add(ops.Activation("sigmoid"), x, name="gate")
            return self.add(ops.Mul(), x, gate, name="silu")
        if choice == 1:
            return self.add(ops.Mul(), gate, sixth, name="hardsigmoid")
        if choice == 2:
            y = self.add(ops.Mul(), x, gate, name="product")
            return self.add(ops.Mul(), y, sixth, name="hardswish")
        y = self.add(ops.Mul(), gate, sixth, name="part")
        return self.add(ops.Mul(), y, x, name="hardswish")

    def noops(self, x: str) -> str:
        shape = self.shape(x)
        size = (shape[2], shape[3])
        same: list[ops.Op] = [
            ops.Reshape(shape), ops.Broadcast(shape), ops.Slice(1, 0, shape[1]),
            ops.Pad((0,) * 4, (0,) * 4), ops.Resize(size, "bilinear", "half_pixel"),
            ops.Pool2d("max", (1, 1), (1, 1)), ops.Concat(1), ops.Transpose((0, 1, 2, 3)),
            ops.Activation("sigmoid"), ops.Activation("relu"), ops.Activation("relu6"),
        ]  # fmt: skip
        for _ in range(self.pick(1, 4)):
            x = self.add(same[self.pick(0, len(same) - 1)], x, name="noop")
        zero = self.constant(*[0.0] * shape[1], shape=(shape[1], 1, 1), name="zero")
        return self.add(ops.Add(), x, zero, name="unshifted")

    def global_pool(self, x: str) -> str:
        """Squeeze in several spellings, then back to the size by broadcasting."""
        n, c, h, w = self.shape(x)
        kind = ("mean", "max")[self.pick(0, 1)]
        choice = self.pick(0, 2)
        if choice == 0:
            pool = ops.Pool2d("avg" if kind == "mean" else "max", (h, w), (1, 1))
            y = self.add(pool, x, name="pool")
        elif choice == 1:
            y = self.add(ops.Reduce(kind, (3,)), x, name="r3")  # type: ignore[arg-type]
            y = self.add(ops.Reduce(kind, (2,)), y, name="r2")  # type: ignore[arg-type]
        else:
            flat = ops.Reduce(kind, (3, 2), keepdims=False)  # type: ignore[arg-type]
            y = self.linear(self.add(flat, x, name="pool"), c, "squeeze", bias=True)
            y = self.add(ops.Reshape((n, c, 1, 1)), y, name="pixel")
        wide = self.add(ops.Broadcast((n, c, h, w)), y, name="wide")
        return self.add((ops.Mul(), ops.Add())[self.pick(0, 1)], x, wide, name="excite")
