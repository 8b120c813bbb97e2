# SPDX-License-Identifier: Apache-2.0
"""The Design: what was chosen, why it is best, and what was known about it; frozen, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.flow.options import DesignOptions
from codesign.flow.store import read_json, write_json

FORMAT = "codesign-design/1"


@dataclass(frozen=True)
class Certificate:
    """What the solver proved of the choice (DESIGN, section 4)."""

    status: str
    objective: float | None
    bound: float | None
    gap: float | None
    architectures_solved: int
    architectures_pruned: int
    seconds: float
    solver: str


@dataclass(frozen=True)
class LayerFacts:
    """One layer with weights: where it is, what it costs in each offered format."""

    name: str
    op: str
    source: str
    macs: int
    parameters: int
    output_shape: tuple[int, ...]
    loss: Mapping[str, float]
    size: Mapping[str, int]
    """Bytes."""
    bops: Mapping[str, int]
    latency_ms: Mapping[str, float | None]
    """Measured on the target alone; None where the solver never had to know."""


@dataclass(frozen=True)
class Round:
    """One turn of the accuracy feedback: solve, measure, tighten."""

    loss_limit: float | None
    loss: float
    choices: Mapping[str, str]
    predicted: float | None
    """Accuracy in percent, interpolated from the designs measured before."""
    measured: float
    met: bool


@dataclass(frozen=True)
class AccuracyFacts:
    """Accuracies in percent on the eval data; None where there is none."""

    baseline: float | None = None
    """The float network's, measured."""
    predicted: float | None = None
    measured: float | None = None
    samples: int | None = None
    rounds: tuple[Round, ...] = ()


@dataclass(frozen=True)
class Design:
    """A chosen design. ``choices`` gives each layer's number format."""

    name: str
    options: DesignOptions
    network_hash: str
    choices: Mapping[str, str]
    objective: str
    limits: Mapping[str, float]
    """Every upper limit that the solver worked under, in the metric's unit."""
    totals: Mapping[str, float]
    """Value of each metric under the choice."""
    baseline: Mapping[str, float]
    """Value of each metric with every layer in the first (reference) format."""
    loss_kind: str
    """How the loss was found, as reports say it."""
    certificate: Certificate
    layers: tuple[LayerFacts, ...]
    accuracy: AccuracyFacts = field(default_factory=AccuracyFacts)
    architecture: str | None = None
    input_digest: str = ""
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of packed weights and biases."""
        return int(self.totals["size"])

    def to_data(self) -> dict[str, Any]:
        """The content of ``design.json``."""
        data = asdict(self)
        data["options"] = self.options.to_data()
        # "float" as in report.json; a field of that name would hide the type
        data["accuracy"] = {"float": data["accuracy"].pop("baseline"), **data["accuracy"]}
        return {"format": FORMAT, **data}

    def save(self, folder: Path) -> Path:
        """Write ``folder/design.json``."""
        path = folder / "design.json"
        write_json(path, self.to_data())
        return path

    @classmethod
    def load(cls, folder: Path) -> Design:
        """Read ``folder/design.json``; raises InputError."""
        made_by = "codesign design NETWORK --out DIR"
        data = read_json(folder / "design.json", FORMAT, made_by)
        try:
            return cls._from_data(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{folder / 'design.json'}: a field is missing, unknown or of a wrong type "
                f"({type(error).__name__}: {error}), as in files of another version; make it anew "
                f"with `{made_by}`"
            ) from None

    @classmethod
    def _from_data(cls, data: dict[str, Any]) -> Design:
        del data["format"]
        accuracy = data["accuracy"]
        accuracy["baseline"] = accuracy.pop("float")
        accuracy["rounds"] = tuple(Round(**item) for item in accuracy["rounds"])
        return cls(
            **{
                **data,
                "options": DesignOptions.from_data(data["options"]),
                "certificate": Certificate(**data["certificate"]),
                "layers": tuple(
                    LayerFacts(**{**item, "output_shape": tuple(item["output_shape"])})
                    for item in data["layers"]
                ),
                "accuracy": AccuracyFacts(**accuracy),
                "notes": tuple(data["notes"]),
            }
        )
