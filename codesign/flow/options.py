# SPDX-License-Identifier: Apache-2.0
"""What a user may ask of a design: network, data, budgets, objective; checked once, here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from codesign.errors import InputError

OBJECTIVES = ("latency", "size", "loss", "bops")
SENSITIVITIES = ("auto", "hessian", "measured", "noise", "weight-only")
CALIBRATIONS = ("minmax", "percentile", "mse", "entropy")

BOARD_OBJECTIVES = ("throughput", "energy", "traffic")
"""What only FPGA boards minimise (throughput: maximise): images/s, µJ and bytes of one image."""

BOARD_LIMITS = ("dsp", "lut", "ff", "ramb18", "energy", "traffic", "fps")
"""Metrics that only FPGA boards limit: blocks, or a share of the part's (``dsp=80%``); energy in
µJ and traffic in KiB of one image; fps is a least rate."""

METRIC_UNITS = {
    "latency": "ms (sum over layers, each alone on the target)",
    "size": "bytes (packed weights and biases)",
    "loss": "loss of the sensitivity method",
    "bops": "bit operations (MACs × weight bits × activation bits)",
}


@dataclass(frozen=True)
class DesignOptions:
    """Options of ``codesign design``; the command line has one flag for each field."""

    network: str
    """``file.onnx``, ``file.pt2``, ``package.module:factory`` or ``zoo:NAME``."""
    target: str = "host"
    """A name that ``codesign list targets`` shows, or a board file (``.toml``)."""
    weights: Path | None = None
    """Weights file of a zoo network."""
    calib: Path | None = None
    """``.npz`` with array ``x``: calibration inputs."""
    eval: Path | None = None
    """``.npz`` with arrays ``x`` and ``y``: inputs and labels that accuracy is measured on."""
    formats: tuple[str, ...] = ("w8a8", "w4a8")
    objective: str = "auto"
    """latency, size, loss or bops; ``auto``: loss if latency or size is limited, else size (FPGA
    boards: else latency). FPGA boards: latency, size, loss, throughput, energy or traffic."""
    max_latency_ms: float | None = None
    max_size_kb: float | None = None
    """1 kB = 1000 bytes."""
    max_drop: float | None = None
    """Accuracy points that may be lost against the float network (needs ``eval``)."""
    min_accuracy: float | None = None
    """Percent (needs ``eval``)."""
    loss_budget: float | None = None
    """0..1 between the least and the greatest total loss of the offered formats (HAWQ-V3)."""
    limits: tuple[tuple[str, float, str], ...] = ()
    """Further upper limits, (metric, value, unit); unit ``%`` is of the reference design (for
    dsp, lut, ff and ramb18 of the part)."""
    sensitivity: str = "auto"
    calibration: str = "mse"
    samples: int = 512
    """Calibration inputs that are used, from the front of ``calib``."""
    solver: str = "auto"
    seed: int = 0
    time_limit: float | None = None
    """Seconds for each solve."""
    jobs: int = 1
    batch: int = 1
    bias_correction: bool = True
    equalise: bool = False
    explain: float = 5.0
    """Seconds, at most, to work out what limits are worth and what other formats would cost; 0: not
    at all."""
    rounds: int = 8
    """Most designs that are measured while an accuracy limit is being met."""
    rpc: str | None = None
    """HOST:PORT of a TVM tracker: latencies are measured on a device behind it."""
    rpc_key: str | None = None
    """The device's name there."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", tuple(self.formats))
        object.__setattr__(self, "limits", tuple((k, float(v), u) for k, v, u in self.limits))
        for name in ("weights", "calib", "eval"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Path(value))
        self._choices()
        self._numbers()
        self._needs()

    def on_device(self, rpc: str | None, rpc_key: str | None) -> DesignOptions:
        """These options, on another device if one is named."""
        if rpc is None and rpc_key is None:
            return self
        return replace(self, rpc=rpc or self.rpc, rpc_key=rpc_key or self.rpc_key)

    def _choices(self) -> None:
        goals = ("auto", *OBJECTIVES, *(BOARD_OBJECTIVES if self._board else ()))
        for name, allowed in (
            ("objective", goals),
            ("sensitivity", SENSITIVITIES),
            ("calibration", CALIBRATIONS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"--{name} {value!r}: expected one of {', '.join(allowed)}")
        for metric, _, unit in self.limits:
            if metric in BOARD_LIMITS and self._board:
                if unit == "%" and metric in BOARD_LIMITS[4:]:
                    raise InputError(f"--limit {metric}: expected a number, not a share")
                continue
            if unit not in ("", "%") or (unit == "%" and metric == "latency"):
                raise InputError(
                    f"--limit {metric}: expected a number, or a share of the reference design "
                    f"such as size=60% (not for latency); got the unit {unit!r}"
                )
            if metric not in OBJECTIVES:
                raise InputError(
                    f"--limit {metric}: target {self.target!r} has no such metric "
                    f"(it has {', '.join(OBJECTIVES)})"
                )
        if not self.formats:
            raise InputError("--formats: expected at least one number format, e.g. w8a8,w4a8")
        if len(set(self.formats)) != len(self.formats):
            raise InputError(f"--formats {','.join(self.formats)}: names a format twice")

    @property
    def _board(self) -> bool:
        from codesign.flow.prepare import load_target  # which knows these options

        return load_target(self.target).device is not None

    def _numbers(self) -> None:
        def bound(flag: str, value: float | None, low: float, high: float, unit: str) -> None:
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                span = (
                    f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
                )
                raise InputError(f"{flag} {value:g}: expected a number {span}{unit}")

        tiny = 1e-9
        bound("--max-latency-ms", self.max_latency_ms, tiny, math.inf, " (milliseconds)")
        bound("--max-size-kb", self.max_size_kb, tiny, math.inf, " (kilobytes of 1000 bytes)")
        bound("--max-drop", self.max_drop, 0, 100, " (accuracy points)")
        bound("--min-accuracy", self.min_accuracy, 0, 100, " (percent)")
        bound("--loss-budget", self.loss_budget, 0, 1, "")
        bound("--time-limit", self.time_limit, tiny, math.inf, " (seconds)")
        bound("--explain", self.explain, 0, math.inf, " (seconds)")
        bound("--samples", self.samples, 1, math.inf, "")
        bound("--rounds", self.rounds, 1, math.inf, "")
        bound("--batch", self.batch, 1, math.inf, "")
        bound("--jobs", self.jobs, 1, math.inf, "")
        bound("--seed", self.seed, 0, math.inf, "")
        for metric, value, _ in self.limits:
            bound(f"--limit {metric}", value, 0, math.inf, "")

    def require_files(self) -> None:
        """Raise InputError if a file is not there; what only reads a finished design needs none."""
        for flag, path in (
            ("--weights", self.weights),
            ("--calib", self.calib),
            ("--eval", self.eval),
        ):
            if path is not None and not path.is_file():
                raise InputError(f"{flag} {path}: no such file")

    def _needs(self) -> None:
        if self.eval is None and (self.max_drop is not None or self.min_accuracy is not None):
            flag = "--max-drop" if self.max_drop is not None else "--min-accuracy"
            raise InputError(
                f"{flag}: accuracy is measured, so it needs labelled data; give --eval X.npz "
                "(arrays x, y), or use --loss-budget, which needs none"
            )
        if self.calib is None and self.sensitivity not in ("auto", "weight-only"):
            raise InputError(
                f"--sensitivity {self.sensitivity}: needs calibration data; give --calib X.npz "
                "(array x), or use --sensitivity weight-only"
            )

    @property
    def goal(self) -> Literal["latency", "size", "loss", "bops"]:
        """The metric that is minimised."""
        if self.objective != "auto":
            return self.objective  # type: ignore[return-value]
        limited = self.max_latency_ms is not None or self.max_size_kb is not None
        return "loss" if limited or any(m != "loss" for m, _, _ in self.limits) else "size"

    @property
    def wants_latency(self) -> bool:
        """Whether the choice depends on latency, so that layers must be measured."""
        return (
            self.goal == "latency"
            or self.max_latency_ms is not None
            or any(metric == "latency" for metric, _, _ in self.limits)
        )

    @property
    def accuracy_limited(self) -> bool:
        """Whether measured accuracy must meet a limit."""
        return self.max_drop is not None or self.min_accuracy is not None

    def to_data(self) -> dict[str, Any]:
        """For JSON; paths become absolute, so that later verbs find the files again."""
        data = asdict(self)
        for name in ("weights", "calib", "eval"):
            if data[name] is not None:
                data[name] = str(Path(data[name]).resolve())
        if Path(self.network).is_file():
            data["network"] = str(Path(self.network).resolve())
        if Path(self.target).is_file():  # a user's board
            data["target"] = str(Path(self.target).resolve())
        data["limits"] = [list(item) for item in self.limits]
        data["formats"] = list(self.formats)
        return data

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> DesignOptions:
        """Inverse of ``to_data``."""
        known = {f.name for f in fields(cls)}
        kept = {key: value for key, value in data.items() if key in known}
        kept["limits"] = tuple(tuple(item) for item in kept.get("limits", ()))
        return cls(**kept)
