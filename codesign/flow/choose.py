# SPDX-License-Identifier: Apache-2.0
"""``codesign design``: network, data and budget in; the best design and its certificate out."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import cast

from codesign import __version__
from codesign.data import cache_dir
from codesign.errors import InfeasibleError, InputError
from codesign.flow.accuracy_loop import AccuracyModel, Found, meet_accuracy
from codesign.flow.artifact import AccuracyFacts, Certificate, Design, Round
from codesign.flow.explaining import explain
from codesign.flow.hardware import board_limits, goal_of, solve_hardware, time_limit_ms
from codesign.flow.joint import JointProblem
from codesign.flow.latency import solve_lazily
from codesign.flow.options import DesignOptions
from codesign.flow.partition import accelerator_ms, partition
from codesign.flow.prepare import Prepared, prepare
from codesign.flow.progress import SILENT, Progress
from codesign.flow.store import (
    digest,
    file_digest,
    make_folder,
    read_json,
    write_json,
    write_text,
)
from codesign.flow.tables import Tables, build_tables, limits
from codesign.frontend.network import content_hash
from codesign.ir.graph import Graph
from codesign.ir.text import print_graph
from codesign.quant import (
    Calibration,
    evaluate,
    quantize_graph,
    shared_inputs,
)
from codesign.quant.sensitivity import SensitivityMethod, sensitivity
from codesign.solvers.solution import Solution
from codesign.targets.base import Target
from codesign.targets.fpga.design import FILE as HARDWARE
from codesign.targets.fpga.design import Hardware

ACCURACY_FORMAT = "codesign-accuracy/1"
FLOAT_IR = "network.ir"
INTEGER_IR = "integer.ir"

TOLERANCE = Decimal("0.01")
"""Share of a network's latency below which timings of designs are not told apart."""
TIGHTENED = 5
"""How often a design is chosen, at most, until the event model finds it in time."""
LOSS_KINDS = {
    "hessian": "Hessian trace × squared weight error (HAWQ), on calibration data",
    "measured": "measured increase of the calibration loss, one layer at a time",
    "noise": "measured noise at the outputs, one layer at a time",
    "weight-only": "weight-only: normalised weight error, no data was given",
}


@dataclass
class Session:
    """The work of one design question; keeps what several steps need."""

    prepared: Prepared
    progress: Progress
    calibration: Calibration = field(init=False)
    tables: Tables = field(init=False)
    hardware: Hardware | None = None
    """Accelerator and mappings, for targets that have such."""
    joint: JointProblem | None = None
    """The problem they were the answer to."""
    tightness: Decimal = Decimal(1)
    """By what limits on an accelerator's time are multiplied, see ``_choose_in_time``."""
    owned: set[tuple[str, str]] = field(default_factory=set)
    """(layer, format) that ran when latencies were measured; others have them by their code."""
    first_choices: Mapping[str, str] = field(default_factory=dict)
    first_measured: Graph | None = None
    """The network that was measured first; later ones run in turns with it."""

    def __post_init__(self) -> None:
        self.calibration = self.prepared.calibrate(self.progress)
        self.tables = self._tables()

    @property
    def options(self) -> DesignOptions:
        """The user's options."""
        return self.prepared.options

    @property
    def method(self) -> SensitivityMethod:
        """The sensitivity method that is used."""
        if self.options.sensitivity != "auto":
            return cast(SensitivityMethod, self.options.sensitivity)
        return "weight-only" if self.prepared.calib is None else "measured"

    @property
    def goal(self) -> str:
        """The metric that is minimised."""
        if self.prepared.target.device is not None:
            return goal_of(self.options)
        return self.options.goal

    def _tables(self) -> Tables:
        graph, formats = self.prepared.graph, self.prepared.formats
        with self.progress.task(f"Sensitivity of {len(graph.layers())} layers") as step:
            loss = sensitivity(
                graph,
                self.prepared.calib,
                list(formats.values()),
                method=self.method,
                calibration=self.calibration,
                options=self.prepared.quant_options,
                seed=self.options.seed,
                cache_dir=cache_dir() / "sensitivity",
                progress=step,
            )
        by_name = {
            layer: {name: row[format] for name, format in formats.items()}
            for layer, row in loss.items()
        }
        target = self.prepared.target
        bound = {layer: target.latency_bound_ms(macs) for layer, macs in self.prepared.macs.items()}
        shared = shared_inputs(graph)
        return build_tables(graph, formats, by_name, self.prepared.macs, shared, bound)

    def quantize(self, choices: Mapping[str, str]) -> Graph:
        """The integer network of a choice."""
        formats = {layer: self.prepared.formats[name] for layer, name in choices.items()}
        return quantize_graph(
            self.prepared.graph, self.calibration, formats, self.prepared.quant_options
        ).graph

    def accuracy(self, graph: Graph, title: str) -> float:
        """Accuracy of a graph on the eval data, in percent; kept on disk by content."""
        assert self.prepared.eval is not None
        assert self.options.eval is not None
        x, y = self.prepared.eval
        folder = make_folder(cache_dir() / "accuracy")
        key = digest(__version__, content_hash(graph), file_digest(self.options.eval))
        kept = folder / f"{key}.json"
        with contextlib.suppress(InputError, KeyError, TypeError, ValueError):
            return float(read_json(kept, ACCURACY_FORMAT, "codesign design")["percent"])
        with self.progress.task(f"Accuracy of {title} on {len(x)} inputs") as step:
            found = evaluate(
                graph, x, y, progress=lambda done: step(done, len(x)), where=f"{self.options.eval}"
            ).top1
        write_json(kept, {"format": ACCURACY_FORMAT, "percent": found})
        return found

    def asked(self, loss_limit: Decimal | None) -> dict[str, Decimal]:
        """All limits by metric, as the user asked; a board's own ones, too."""
        found = limits(self.tables, self.options, loss_limit)
        device = self.prepared.target.device
        return found if device is None else found | board_limits(self.options, device)

    def solve(self, loss_limit: Decimal | None) -> Solution:
        """Best design under a loss limit; measures layers as far as the choice needs it."""
        device = self.prepared.target.device
        if device is not None:
            with self.progress.task(f"Solving for {device.board}: accelerator, formats, mappings"):
                solution, self.hardware, self.tables, self.joint = solve_hardware(
                    self.prepared.graph, device, self.tables, self.options, loss_limit,
                    self.tightness,
                )  # fmt: skip
            return solution
        with self.progress.task("Solving"):
            solution, self.tables = solve_lazily(
                self.tables, self.options, loss_limit, self.measure_layers, self.ratio,
                self.estimates, TOLERANCE,
            )  # fmt: skip
        return solution

    def ratio(self, name: str, other: str) -> float:
        """What the target knows of the latency in one format from that in another."""
        formats = self.prepared.formats
        return self.prepared.target.least_ratio(formats[name], formats[other])

    def measure_layers(
        self, choices: Mapping[str, str], layers: frozenset[str]
    ) -> Mapping[tuple[str, str], float]:
        """Milliseconds of the chosen (layer, format): each layer's share of the network's latency
        where the target can tell, else the layer alone. Entries that run the same code have the
        same latency: their own layer's, else the mean of those that were measured."""
        target = self.prepared.target
        graph = self.quantize(choices)
        with self.progress.task(f"Measuring {len(layers)} layers on {target.name}"):
            timings = target.network_latency(graph, self.first_measured)
        if self.first_measured is None:
            self.first_choices, self.first_measured = choices, graph
        found: dict[tuple[str, str], float] = {}
        by_code: dict[str, list[float]] = {}
        for layer, name in choices.items():
            self.owned.add((layer, name))
            by_code.setdefault(self.codes[layer, name], []).append(timings[layer].median_ms)
        for (layer, name), code in self.codes.items():
            if (layer, name) in self.tables.measured or code not in by_code:
                continue
            own = code == self.codes[layer, choices[layer]]
            found[layer, name] = (
                timings[layer].median_ms if own else statistics.fmean(by_code[code])
            )
        return found

    def estimates(self, tables: Tables) -> Tables:
        """Guesses in place of bounds, from what the target knows of formats and their code."""
        target = self.prepared.target
        costs = {name: target.relative_cost(f) for name, f in self.prepared.formats.items()}
        return tables.with_estimates(self.codes, costs)

    @cached_property
    def codes(self) -> Mapping[tuple[str, str], str]:
        """What code each (layer, format) runs; entries of equal code have equal latencies."""
        target, formats = self.prepared.target, self.prepared.formats
        knows = type(target).layer_codes is not Target.layer_codes
        found: dict[tuple[str, str], str] = {}
        with self.progress.task(f"Kernels of {len(formats)} formats"):
            for name in formats:
                uniform = _uniform(self, name)
                codes = target.layer_codes(self.quantize(uniform)) if knows else {}
                for layer in self.tables.layers:
                    alike = next((
                        other for other in formats
                        if target.same_code(formats[other], formats[name])
                    ), name)  # fmt: skip
                    found[layer, name] = codes.get(layer) or f"{layer} {alike}"
        return found


def design(options: DesignOptions, out: Path, progress: Progress = SILENT) -> Design:
    """Choose the best design for ``options`` and write it to ``out``.

    Writes ``design.json``, ``network.ir`` (the prepared float graph) and ``integer.ir``.
    A finished design for the same inputs is kept as it is; an interrupted run goes on from its
    cached sensitivities, measured layers and accuracies. Raises InputError, UnsupportedError,
    InfeasibleError.
    """
    options.require_files()
    out = make_folder(out)
    prepared = prepare(options, progress)
    if kept := _finished(out, prepared.input_digest, prepared.target.device is not None):
        progress.note(f"{out}/design.json is up to date")
        return kept
    session = Session(prepared, progress)
    found, accuracy, integer = _choose_in_time(session)
    chosen = _to_design(session, found, accuracy)
    write_text(out / FLOAT_IR, print_graph(prepared.graph))
    write_text(out / INTEGER_IR, print_graph(integer))
    if session.hardware is not None:
        write_json(out / HARDWARE, session.hardware.to_data())
    explain(session, found.loss_limit, out)
    chosen.save(out)
    return chosen


def _finished(out: Path, input_digest: str, hardware: bool) -> Design | None:
    names = ["design.json", FLOAT_IR, INTEGER_IR, *([HARDWARE] if hardware else [])]
    if not all((out / name).is_file() for name in names):
        return None
    try:
        kept = Design.load(out)
    except (InputError, KeyError, TypeError):
        return None  # from another version or damaged: it is made anew
    return kept if kept.input_digest == input_digest else None


def _choose_in_time(session: Session) -> tuple[Found, AccuracyFacts, Graph]:
    """Choose, and cut between accelerator and ARM cores. The solver's formulas are some percent
    off, the event model is not: where it finds an accelerator over a limit on its time, choose
    again under a limit as much tighter. Also returns the integer network."""
    device = session.prepared.target.device
    for _ in range(TIGHTENED):
        found, accuracy = _choose(session)
        integer = session.quantize(found.choices)
        if session.hardware is None or device is None:
            return found, accuracy, integer
        with session.progress.task("Partition between accelerator and ARM cores"):
            session.hardware = partition(integer, session.hardware, device)
        most = time_limit_ms(session.asked(found.loss_limit))
        if most is None:
            return found, accuracy, integer
        took = accelerator_ms(integer, session.hardware, device)
        if took <= most:
            return found, accuracy, integer
        session.tightness *= Decimal(most / took)
        session.progress.note(
            f"{took:.4g} ms by the event model, {session.hardware.network_ms:.4g} by the solver's "
            f"formulas: over the limit of {most:g} ms; again with a limit that is "
            f"{100 * (1 - session.tightness):.1f} % tighter"
        )
    raise InfeasibleError(
        f"{session.options.network} on {session.prepared.target.name}: after {TIGHTENED} rounds "
        f"the design takes {took:.4g} ms by the event model, {most:g} were allowed; allow more"
    )


def _choose(session: Session) -> tuple[Found, AccuracyFacts]:
    """Solve; where accuracy is limited, measure and tighten until it holds."""
    if session.prepared.eval is None:
        solution = session.solve(None)
        return _unmeasured(session, solution), AccuracyFacts()
    samples = len(session.prepared.eval[0])
    base = session.accuracy(session.prepared.graph, "the float network")
    model = AccuracyModel(base)

    def measure(choices: Mapping[str, str]) -> float:
        return session.accuracy(session.quantize(choices), "the integer network")

    rounds: tuple[Round, ...] = ()
    if session.options.accuracy_limited:
        found, rounds = meet_accuracy(
            session.solve,
            measure,
            lambda choices: session.tables.total("loss", choices),
            model,
            _least_accuracy(session.options, base),
            session.options.rounds,
            session.progress.note,
        )
        predicted = rounds[-1].predicted
        for item in rounds:
            if dict(item.choices) == dict(found.choices):
                predicted = item.predicted
    else:
        _learn_widest_and_narrowest(session, model, measure)
        found = _unmeasured(session, session.solve(None))
        predicted = model.predict(found.loss)
        found = Found(found.solution, None, found.loss, measure(found.choices))
    return found, AccuracyFacts(base, predicted, found.accuracy, samples, rounds)


def _unmeasured(session: Session, solution: Solution) -> Found:
    assert solution.choices is not None
    return Found(solution, None, session.tables.total("loss", solution.choices), float("nan"))


def _least_accuracy(options: DesignOptions, base: float) -> float:
    """The tighter of the two accuracy limits, in percent."""
    least = 0.0 if options.min_accuracy is None else options.min_accuracy
    return least if options.max_drop is None else max(least, base - options.max_drop)


def _learn_widest_and_narrowest(
    session: Session, model: AccuracyModel, measure: Callable[[Mapping[str, str]], float]
) -> None:
    """Measure two uniform designs, so that the prediction interpolates instead of guessing."""
    for pick in (min, max):
        choices = _uniform(
            session,
            pick(
                session.prepared.formats,
                key=lambda name: session.tables.total("loss", _uniform(session, name)),
            ),
        )
        model.add(session.tables.total("loss", choices), measure(choices))


def _uniform(session: Session, name: str) -> dict[str, str]:
    return dict.fromkeys(session.tables.layers, name)


def _to_design(session: Session, found: Found, accuracy: AccuracyFacts) -> Design:
    prepared, tables, solution = session.prepared, session.tables, found.solution
    reference = _uniform(session, next(iter(prepared.formats)))
    totals = {k: float(v) for k, v in tables.totals(found.choices).items()}
    if session.hardware is not None:  # with the operators that are no layers
        totals["latency"] = session.hardware.network_ms
    asked = session.asked(found.loss_limit)
    return Design(
        name=prepared.name,
        options=session.options,
        network_hash=prepared.network_hash,
        choices=dict(found.choices),
        objective=session.goal,
        limits={k: float(v) for k, v in asked.items()},
        totals=totals,
        baseline={k: float(v) for k, v in tables.totals(reference).items()},
        loss_kind=LOSS_KINDS[session.method],
        certificate=Certificate(
            status=str(solution.status),
            objective=None if solution.objective is None else float(solution.objective),
            bound=None if solution.bound is None else float(solution.bound),
            gap=solution.gap,
            architectures_solved=solution.architectures_solved,
            architectures_pruned=solution.architectures_pruned,
            seconds=solution.seconds,
            solver=solution.solver,
        ),
        architecture=solution.architecture,
        layers=tables.facts(prepared.graph, prepared.macs),
        accuracy=accuracy,
        input_digest=prepared.input_digest,
        notes=prepared.notes,
    )
