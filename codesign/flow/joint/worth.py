# SPDX-License-Identifier: Apache-2.0
"""What an explanation of a joint design says: worth of limits and capacities, next best formats."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LimitWorth:
    """One limit at the optimum; gains are of the objective in its unit, 0 or more, None where time
    ended before the solve."""

    limit: str
    total: float
    binds: bool | None
    """Whether the optimum improves without it."""
    gain_without: float | None
    more: float
    """What "one more unit" is here, in the limit's unit."""
    gain_of_more: float | None
    next_limit: float | None
    """The nearest value at which the optimum improves at all; None when it never does."""
    gain_at_next: float | None

    @property
    def text(self) -> str:
        """A line for people."""
        head = f"{self.limit} (total {self.total:.6g})"
        if self.binds is None or (self.binds and self.gain_of_more is None):
            return f"{head}: not worked out, time ended"
        if not self.binds:
            return f"{head}: does not bind"
        text = f"{head}: binds; {self.more:.4g} more is worth {self.gain_of_more:.6g}"
        if self.next_limit is not None and self.gain_at_next is not None:
            text += f"; the next step is at {self.next_limit:.6g}, worth {self.gain_at_next:.6g}"
        return text


@dataclass(frozen=True)
class LayerWorth:
    """The format of one layer and what the next best would cost, all else free to change."""

    layer: str
    format: str
    next_format: str | None
    cost: float | None
    """Of the objective in its unit; None when no other format is feasible or time ended."""
    complete: bool = True

    @property
    def text(self) -> str:
        """A line for people."""
        head = f"{self.layer}: {self.format}"
        if not self.complete:
            return f"{head}; next best not worked out, time ended"
        if self.cost is None:
            return f"{head}; no other format is feasible"
        return f"{head}; next best {self.next_format}, {self.cost:.6g} worse"


@dataclass(frozen=True)
class CapacityWorth:
    """What the part holds of one resource, and what more of it would be worth; gains as in
    ``LimitWorth``."""

    resource: str
    capacity: int
    """That accelerators may use: of LUT and FF a share of what is there."""
    used: int
    unit: int
    gain_of_unit: float | None
    more: int
    """A tenth of the capacity."""
    gain_of_more: float | None

    @property
    def text(self) -> str:
        """A line for people."""
        head = f"{self.resource} <= {self.capacity} of the part (used {self.used})"
        if self.gain_of_more is None:
            return f"{head}: not worked out, time ended"
        if not self.gain_of_more:
            return f"{head}: does not bind; {self.more} more are worth nothing"
        one = f"{self.unit} more is worth {self.gain_of_unit:.6g}; "
        one = "" if self.gain_of_unit is None else one
        return f"{head}: binds; {one}{self.more} more are worth {self.gain_of_more:.6g}"


@dataclass(frozen=True)
class JointExplanation:
    """Which limits bind and why each layer has its format; modelled figures, each a solve."""

    objective: str
    value: float
    unit: str
    limits: tuple[LimitWorth, ...]
    layers: tuple[LayerWorth, ...]
    capacities: tuple[CapacityWorth, ...] = ()

    @property
    def text(self) -> str:
        """Lines for people."""
        head = f"{self.objective} {self.value:.6g} {self.unit} (modelled)"
        bounds = [*(x.text for x in self.limits), *(x.text for x in self.capacities)]
        return "\n".join([head, *bounds, *(x.text for x in self.layers)])

    def to_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "objective": self.objective,
            "value_modelled": self.value,
            "unit": self.unit,
            "limits": [asdict(item) | {"text": item.text} for item in self.limits],
            "capacities": [asdict(item) | {"text": item.text} for item in self.capacities],
            "layers": [asdict(item) | {"text": item.text} for item in self.layers],
        }
