# SPDX-License-Identifier: Apache-2.0
"""Every accelerator of a grid that a device holds, as arrays; dominated ones can be dropped.

Dominance: more requantisers, a doubling engine, a wider port or a deeper buffer leave every tiling
legal that was legal and make none of them slower (``tests/space`` and ``docs/formulation.md``), so
an accelerator is dropped when the next larger value of one of these axes, all else the same, still
fits the device. Lanes are not compared: more of them may make tiles coarser and a layer slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.cost.logic import LogicModel, Sizes, logic_model
from codesign.cost.packing import lut_product
from codesign.cost.resources import REQUANT_DSP, engine_dsp, engine_rams, way_out_rams
from codesign.cost.tables import Cores, Grid
from codesign.errors import InfeasibleError, InputError
from codesign.space.accelerator import Accelerator, Buffer, Engine, built_depthwise
from codesign.space.device import Device, devices

Array = npt.NDArray[np.int64]
RESOURCES = ("dsp", "lut", "ff", "ramb18")


@dataclass(frozen=True)
class DenseKind:
    """Operand widths and multipliers that dense engines are generated with."""

    weight_bits: int = 8
    activation_bits: int = 8
    lut: bool = False
    """Multipliers of LUTs instead of the device's hard ones."""


@dataclass(frozen=True)
class SpaceOptions:
    """The grid. Defaults suit devices of 150 to 2,500 multipliers; lanes grow with the device."""

    inputs: tuple[int, ...] = (4, 8, 16, 24, 32, 48, 64)
    """4 or multiples of 8: memory holds blocks of 8 channels."""
    outputs: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    pixels: tuple[int, ...] = (1, 2, 4, 7, 8)
    kinds: tuple[DenseKind, ...] = (
        DenseKind(),
        DenseKind(4, 8),
        DenseKind(4, 4),
        DenseKind(4, 4, lut=True),
    )
    least_products: int = 64
    """Dense engines of fewer lanes are not generated."""
    double: tuple[bool, ...] = (False, True)
    post: tuple[int, ...] = (8, 16)
    weight_depths: tuple[int, ...] = (512, 1024, 2048, 4096)
    activation_depths: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    accumulator_depths: tuple[int, ...] = (512, 1024, 2048)
    depthwise_lanes: tuple[tuple[int, int], ...] = (
        (8, 1), (8, 2), (16, 1), (16, 2), (16, 4), (32, 1), (32, 2), (32, 4),
    )  # fmt: skip
    """(po, px) of depthwise engines."""
    depthwise_lut_lanes: tuple[tuple[int, int], ...] = ((8, 1),)
    """(po, px) of depthwise engines that multiply in LUTs."""
    depthwise: tuple[bool, ...] = (True,)
    """Whether accelerators without and with a depthwise engine are generated. Hardware always has
    one: pools, additions and other element-wise operators run on it."""
    depthwise_post: int = 4
    depthwise_wide_post: int = 8
    """Of depthwise engines of more than 32 lanes, whose results 4 requantisers would hold up."""
    depthwise_weight_depth: int = 512
    depthwise_activation_depths: tuple[int, ...] = (1024, 2048, 4096)
    fill_percent: Mapping[str, int] = field(default_factory=lambda: {"lut": 70, "ff": 50})
    """Share of each resource that may be used; 100 where not named. Source of LUT and FF: FINN's
    limits for timing closure."""


AXES = ("double", "post", "port", "weight", "activation", "accumulator", "dw_activation")
"""Axes along which more is never slower."""


@dataclass(frozen=True, eq=False)
class Space:
    """Accelerators as columns of places in the grid."""

    device: Device
    options: SpaceOptions
    dense_bases: tuple[Engine, ...]
    """Dense engines without depths, post and double."""
    depthwise_bases: tuple[Engine | None, ...]
    base: Array
    """Place in ``dense_bases``."""
    dw_base: Array
    """Place in ``depthwise_bases``."""
    axes: Mapping[str, Array]
    """Place on each of ``AXES``."""
    use: Mapping[str, Array]
    """Modelled use of each of ``RESOURCES``."""
    generated: int
    """Accelerators that fit the device, before any were dropped."""

    def __len__(self) -> int:
        return len(self.base)

    def __iter__(self) -> Iterator[Accelerator]:
        return map(self.accelerator, range(len(self)))

    @cached_property
    def dense_grid(self) -> Grid:
        """Depths of the dense engines' buffers."""
        o = self.options
        return Grid(o.weight_depths, o.activation_depths, o.accumulator_depths)

    @cached_property
    def depthwise_grid(self) -> Grid:
        """Depths of the depthwise engines' buffers."""
        o = self.options
        return Grid((o.depthwise_weight_depth,), o.depthwise_activation_depths)

    def accelerator(self, place: int) -> Accelerator:
        """The accelerator at ``place``."""
        at = {name: int(column[place]) for name, column in self.axes.items()}
        o = self.options
        dense = replace(
            self.dense_bases[int(self.base[place])],
            double=o.double[at["double"]],
            post=o.post[at["post"]],
            weight=Buffer(o.weight_depths[at["weight"]]),
            activation=Buffer(o.activation_depths[at["activation"]]),
            accumulator=Buffer(o.accumulator_depths[at["accumulator"]]),
        )
        other = self.depthwise_bases[int(self.dw_base[place])]
        if other is not None:
            depth = o.depthwise_activation_depths[at["dw_activation"]]
            other = replace(other, activation=Buffer(depth))
        return Accelerator(dense, other, self.device.ports[at["port"]])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all accelerators."""
        return tuple(self.accelerator(place).name for place in range(len(self)))

    def take(self, places: Any) -> Space:
        """The accelerators at ``places``."""
        return replace(
            self,
            base=self.base[places],
            dw_base=self.dw_base[places],
            axes={name: column[places] for name, column in self.axes.items()},
            use={name: column[places] for name, column in self.use.items()},
        )

    @cached_property
    def dense_cores(self) -> tuple[Cores, npt.NDArray[np.bool_], Array]:
        """Different dense cores, which of them double, and each accelerator's place among them."""
        keys = np.stack(
            [self.base, self.axes["double"], self.axes["post"], self.axes["port"]], axis=1
        )
        found, inverse = np.unique(keys, axis=0, return_inverse=True)
        engines = [
            replace(self.dense_bases[b], double=self.options.double[d], post=self.options.post[p])
            for b, d, p, _ in found
        ]
        ports = [self.device.ports[p] for *_, p in found]
        doubles = np.array([e.double for e in engines], dtype=np.bool_)
        return Cores.of(engines, ports), doubles, inverse.reshape(-1)

    @cached_property
    def depthwise_cores(self) -> tuple[Cores, Array]:
        """Different depthwise cores, and each accelerator's place among them; -1 for none."""
        has = np.array([e is not None for e in self.depthwise_bases])[self.dw_base]
        keys = np.stack([self.dw_base[has], self.axes["port"][has]], axis=1)
        found, inverse = np.unique(keys, axis=0, return_inverse=True)
        engines = [e for b, _ in found if (e := self.depthwise_bases[b]) is not None]
        place = np.full(len(self), -1, dtype=np.int64)
        place[has] = inverse.reshape(-1)
        return Cores.of(engines, [self.device.ports[p] for _, p in found]), place


def generate(
    device: Device, options: SpaceOptions | None = None, budget: Mapping[str, int] | None = None,
    drop_dominated: bool = True, model: LogicModel | None = None,
) -> Space:  # fmt: skip
    """Accelerators of the grid within the device (times ``fill_percent``) and ``budget``.

    ``budget`` holds absolute limits of any of dsp, lut, ff, ramb18. Raises InputError for unknown
    resources and InfeasibleError when nothing fits.
    """
    options = options or SpaceOptions()
    caps = _caps(device, options, budget or {})
    dense = tuple(
        Engine(
            "dense", pi, po, px, Buffer(0), Buffer(0), Buffer(0), kind.weight_bits,
            kind.activation_bits, "lut" if kind.lut else device.multiplier,
        )
        for kind in options.kinds
        for pi in options.inputs
        for po in options.outputs
        for px in options.pixels
        if pi * po * px >= options.least_products
    )  # fmt: skip
    others: list[Engine | None] = [None] if False in options.depthwise else []
    if True in options.depthwise:
        others += [
            Engine(
                "depthwise", 1, po, px, Buffer(options.depthwise_weight_depth), Buffer(0),
                multiplier=kind,
                post=options.depthwise_post if po * px <= 32 else options.depthwise_wide_post,
            )
            for kind, lanes in (
                (device.multiplier, options.depthwise_lanes), ("lut", options.depthwise_lut_lanes)
            )
            for po, px in lanes
        ]  # fmt: skip
    use, alone = _use(device, options, dense, others, model or logic_model(device.family))
    fits = alone
    for name in RESOURCES:
        fits = fits & (use[name] <= caps[name])
    count = int(fits.sum())
    if not count:
        raise InfeasibleError(_nothing(device, caps, use))
    keep = _undominated(fits) if drop_dominated else fits
    places = np.nonzero(keep)
    return Space(
        device, options, dense, tuple(others), places[0], places[1],
        dict(zip(AXES, places[2:])), {n: np.broadcast_to(use[n], fits.shape)[places] for n in use},
        count,
    )  # fmt: skip


def _caps(device: Device, options: SpaceOptions, budget: Mapping[str, int]) -> dict[str, int]:
    unknown = sorted(set(budget) - set(RESOURCES))
    if unknown:
        raise InputError(f"unknown resource {unknown[0]!r} (known: {', '.join(RESOURCES)})")
    caps = {}
    for name in RESOURCES:
        available = getattr(device, name) * options.fill_percent.get(name, 100) // 100
        caps[name] = min(available, budget.get(name, available))
    return caps


def _nothing(device: Device, caps: Mapping[str, int], use: Mapping[str, Any]) -> str:
    said = f"no accelerator of the grid fits {device.name}: "
    least = {name: int(use[name].min()) for name in RESOURCES}
    over = [n for n in RESOURCES if least[n] > caps[n]]
    if over:
        said += "the smallest needs " + ", ".join(f"{n} {least[n]} of {caps[n]}" for n in over)
    else:  # raising one of them may do
        alone = {n: _least_beside(n, caps, use) for n in RESOURCES}
        said += "each limit can hold alone, not all at once" + "".join(
            f"; {n} <= {caps[n]} is feasible from {need}, the others kept"
            for n, need in alone.items() if need is not None
        )  # fmt: skip
        if any(need is not None and getattr(device, n) >= need for n, need in alone.items()):
            return f"{said}; the part has enough: allow that much"
        return f"{said}; allow more of several, or take a larger part"
    if all(getattr(device, n) >= least[n] for n in over):
        return f"{said}; the part has enough: allow that much"
    larger = [d.board for d in devices().values() if all(getattr(d, n) >= least[n] for n in least)]
    return f"{said}; boards that have it: {', '.join(larger)}" if larger else said


def _least_beside(name: str, caps: Mapping[str, int], use: Mapping[str, Any]) -> int | None:
    """The least use of ``name`` among accelerators within all other limits; None: there is none."""
    fits = np.ones_like(use[name], dtype=bool)
    for other in RESOURCES:
        if other != name:
            fits = fits & (use[other] <= caps[other])
    least = np.where(fits, use[name], np.iinfo(np.int64).max).min()
    return int(least) if fits.any() else None


def _built(engine: Engine | None, device: Device) -> Engine:
    """What hardware has for a depthwise engine or none (multipliers as the device's)."""
    one = Engine("dense", 8, 8, 1, Buffer(0), Buffer(0), multiplier=device.multiplier)
    return built_depthwise(Accelerator(one, engine, 64))


def _axis(values: Sequence[Any], axis: int) -> Any:
    shape = [1] * (2 + len(AXES))
    shape[axis] = len(values)
    return np.array(values).reshape(shape)


def _use(
    device: Device, options: SpaceOptions, dense: Sequence[Engine],
    others: Sequence[Engine | None], model: LogicModel,
) -> tuple[dict[str, Any], npt.NDArray[np.bool_]]:  # fmt: skip
    """Modelled resources over the whole grid (broadcastable arrays), as
    ``codesign.cost.resources.resources`` gives them one by one; and which places are meant: without
    a depthwise engine its depth is the first one, and only what can double doubles."""
    lead = (-1,) + (1,) * (1 + len(AXES))
    second = (1, -1) + (1,) * len(AXES)
    double = _axis(options.double, 2).astype(np.int64)
    post = _axis(options.post, 3)
    port = _axis(device.ports, 4)
    w_depth = _axis(options.weight_depths, 5)
    a_depth = _axis(options.activation_depths, 6)
    o_depth = _axis(options.accumulator_depths, 7)
    dwa = _axis(options.depthwise_activation_depths, 8)
    family = device.family
    built = [_built(e, device) for e in others]

    def sizes(engines: Sequence[Engine], shape: Any, **given: Any) -> Sizes:
        one = [Sizes.of(e, family) for e in engines]
        columns = {
            name: np.array([getattr(s, name) for s in one]).reshape(shape)
            for name in (
                "pi", "po", "px", "weight_bits", "activation_bits", "post", "double", "product",
                "accumulator_bits",
            )
        }  # fmt: skip
        return Sizes(one[0].dense, **(columns | given))

    def hard_products(engines: Sequence[Engine], shape: Any) -> Any:
        return np.array([
            engine_dsp(e.kind, e.multiplier, e.pi, e.po, e.px, e.weight_bits, e.activation_bits, 0)
            for e in engines
        ]).reshape(shape)  # fmt: skip

    main, other = sizes(dense, lead, double=double, post=post), sizes(built, second)
    named = np.array([e is not None for e in others]).reshape(second)
    # what stands in for a missing engine multiplies as the dense engine does
    soft = ~named & (main.product > 0)
    other = replace(other, product=np.where(soft, lut_product(family, 8, 8), other.product))
    hard = 1 - (main.product > 0) * (other.product > 0)
    requantisers = REQUANT_DSP * hard * (post + other.post)
    dw_words, dw_depth = (
        np.array([getattr(b, name).depth * getattr(b, name).banks for b in built]).reshape(second)
        for name in ("weight", "activation")
    )
    dw_activations = np.where(named, 2 * dwa, dw_depth)
    use = {
        "dsp": hard_products(dense, lead) + np.where(soft, 0, hard_products(built, second))
        + requantisers,
        "lut": model.total("lut", main, other, port, hard),
        "ff": model.total("ff", main, other, port, hard),
        "ramb18": engine_rams(main, 2 * w_depth, 2 * a_depth, o_depth)
        + engine_rams(other, dw_words, dw_activations, 0)
        + way_out_rams(family, post) + way_out_rams(family, other.post),
    }
    first = np.arange(len(options.depthwise_activation_depths)).reshape(dwa.shape) == 0
    may_double = main.activation_bits >= 8
    meant = (named | first) & (may_double | ~double.astype(np.bool_))
    shape = np.broadcast_shapes(*(np.shape(v) for v in use.values()), meant.shape)
    return use, np.broadcast_to(meant, shape)


def _undominated(fits: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Places whose next larger value fits on no axis after the first two."""
    keep = fits.copy()
    for axis in range(2, fits.ndim):
        lower = [slice(None)] * fits.ndim
        upper = [slice(None)] * fits.ndim
        lower[axis], upper[axis] = slice(0, -1), slice(1, None)
        keep[tuple(lower)] &= ~fits[tuple(upper)]
    return keep
