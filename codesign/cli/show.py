# SPDX-License-Identifier: Apache-2.0
"""How results are printed: tables for people, one JSON document for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codesign.errors import CodesignError, InfeasibleError
from codesign.flow.store import to_json
from codesign.solvers.decimals import dump_json

if TYPE_CHECKING:
    from codesign.flow.artifact import Design
    from codesign.flow.everything import Outcome
    from codesign.flow.inspecting import Inspection
    from codesign.flow.ladder import Rung
    from codesign.flow.listing import Entry
    from codesign.flow.measuring import Measured
    from codesign.solvers import Solution
    from codesign.solvers.explain import Explanation

SIGNS = {"exact": "=", "within": "~", "failed": "x", "skipped": "-"}


class Answered(Exception):
    """An error after its result was printed: stdout holds one document already."""

    def __init__(self, error: CodesignError) -> None:
        super().__init__(str(error))
        self.error = error


def document(data: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    click.echo(to_json(data), nl=False)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; numbers to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths)
        ]
        click.echo("  ".join(cells).rstrip())


def text(content: str, output: Path | None) -> None:
    """Text to a file or to stdout."""
    if output is None:
        click.echo(content, nl=False)
    else:
        from codesign.flow.store import write_text

        write_text(output, content)


def place(what: str, path: Path, json: bool) -> None:
    """Where a result lies."""
    if json:
        document({what: str(path)})
    else:
        click.echo(f"{what}: {path}")


def design(chosen: Design, out: Path, json: bool) -> None:
    """A design: choice, totals, certificate."""
    if json:
        document(chosen.to_data())
        return
    proof = chosen.certificate
    rows = [
        [
            layer.name,
            layer.op,
            chosen.choices[layer.name],
            f"{layer.macs:,}",
            f"{layer.size[chosen.choices[layer.name]]:,}",
        ]
        for layer in chosen.layers
    ]
    _table(["layer", "op", "format", "MACs", "bytes"], rows)
    click.echo()
    for name, value in chosen.totals.items():
        limit = chosen.limits.get(name)
        bound = f"  (limit {limit:,.6g})" if limit is not None else ""
        base = chosen.baseline.get(name)
        reference = "not measured" if base is None else f"{base:,.6g}"
        click.echo(f"{name:8} {value:,.6g}, all {chosen.options.formats[0]}: {reference}{bound}")
    click.echo(f"loss is {chosen.loss_kind}")
    facts = chosen.accuracy
    if facts.measured is not None:
        predicted = "" if facts.predicted is None else f", predicted {facts.predicted:.2f} %"
        click.echo(
            f"accuracy {facts.measured:.2f} % (measured on {facts.samples} inputs){predicted}, "
            f"float {facts.baseline:.2f} % (measured)"
        )
    gap = "unknown" if proof.gap is None else f"{100 * proof.gap:.3g} %"
    click.echo(
        f"{proof.status} by {proof.solver}: {chosen.objective} {proof.objective:,.6g}, "
        f"gap {gap}, {proof.seconds:.3f} s"
    )
    from codesign.flow.explaining import explanation

    why = explanation(out, chosen.input_digest)
    if why is not None:
        for line in why["limits"]:
            click.echo(f"limit {line}")
        click.echo(f"next best formats of {len(why['layers'])} layers: {out / 'explain.json'}")
    click.echo(f"design: {out / 'design.json'}")


def ladder(rungs: Sequence[Rung], json: bool) -> None:
    """One line a rung."""
    if json:
        document({"ladder": [asdict(rung) for rung in rungs]})
        return
    for rung in rungs:
        click.echo(f"{SIGNS[rung.status]} {rung.rung:12} {rung.status:8} {rung.why}")


def measured(found: Measured, json: bool) -> None:
    """Latencies, each with its label."""
    if json:
        document({**asdict(found), "model_error": found.model_error})
        return
    _table(
        ["layer", f"ms ({found.kind})"],
        [[name, f"{value:.4f}"] for name, value in found.layers_ms.items()],
    )
    if found.network_ms is None or found.network_least_ms is None or found.model_error is None:
        rest = found.modelled_ms - sum(found.layers_ms.values())
        more = f" and {rest:.4f} ms of what else it does" if rest > 1e-6 else ""
        if rest < -1e-6:
            more = " but for those that the ARM cores run"
        click.echo(
            f"\nnetwork {found.modelled_ms:.3f} ms ({found.kind}: sum of its layers{more}) on "
            f"{found.machine}; not measured"
        )
        if "total" in found.counts:
            click.echo(f"{found.counts['total']:,} instructions a call (counted under emulation)")
        return
    click.echo(
        f"\nnetwork {found.network_ms:.3f} ms (measured, median of {found.samples}; least "
        f"{found.network_least_ms:.3f} ms) on {found.machine}\n"
        f"sum of layers {found.modelled_ms:.3f} ms (modelled; error "
        f"{100 * found.model_error:+.1f} %)\n"
        f"{100 * found.table_share:.0f} % of the layer × format table is measured"
    )


def outcome(done: Outcome, out: Path, json: bool) -> None:
    """Everything a run found."""
    if json:
        document(
            {
                "design": done.design.to_data(),
                "ladder": [asdict(rung) for rung in done.rungs],
                "measured": {**asdict(done.measured), "model_error": done.measured.model_error},
                "report": str(done.report),
            }
        )
        return
    design(done.design, out, False)
    click.echo("\nverification")
    ladder(done.rungs, False)
    click.echo("\nlatency")
    measured(done.measured, False)
    if done.placed is not None:
        click.echo(f"\nplaced and routed, {done.placed}")
    click.echo(f"\nreport: {done.report}")


def solution(
    found: Solution, output: Path | None, json: bool, why: Explanation | None = None
) -> None:
    """A solution; raises Answered (exit code 3) after printing where there is none."""
    if json and why is not None:
        click.echo(dump_json({**found.to_data(), "explanation": why.to_data()}))
    elif json or output is None:
        click.echo(found.to_json(), nl=False)
    else:
        click.echo(f"{found.status}, objective {found.objective}, bound {found.bound}: {output}")
    if why is not None and not json:
        click.echo(why.text)
    if found.choices is None:
        if found.explanation is not None:
            raise Answered(InfeasibleError(found.explanation.text))
        raise Answered(
            InfeasibleError(
                f"{found.status}: no answer was found in time; allow more with --time-limit"
            )
        )


def inspection(facts: Inspection, json: bool) -> None:
    """IR, layer table, totals, and what the target cannot take."""
    if json:
        document(
            {
                "name": facts.graph.name,
                "inputs": {n: str(facts.graph.type(n)) for n in facts.graph.inputs},
                "outputs": {n: str(facts.graph.type(n)) for n in facts.graph.outputs},
                "macs": facts.macs,
                "parameters": facts.parameters,
                "layers": [asdict(layer) for layer in facts.layers],
                "target": facts.target,
                "unsupported": list(facts.unsupported),
            }
        )
        return
    click.echo(str(facts.graph))
    _table(
        ["layer", "op", "output", "MACs", "parameters"],
        [
            [
                s.name,
                facts.graph.nodes[s.name].op.name,
                str(facts.graph.type(s.name)),
                f"{s.macs:,}",
                f"{s.parameters:,}",
            ]
            for s in facts.layers
            if s.macs or s.parameters
        ],
    )
    click.echo(f"\n{facts.macs:,} MACs, {facts.parameters:,} parameters")
    if facts.unsupported:
        click.echo(f"target {facts.target} cannot take:")
        for line in facts.unsupported:
            click.echo(f"  {line}")
    else:
        click.echo(f"target {facts.target} takes every operator")


def listing(entries: Sequence[Entry], json: bool) -> None:
    """Names, whether usable, what they are."""
    if json:
        document({"entries": [asdict(entry) for entry in entries]})
        return
    for entry in entries:
        state = "" if entry.available else f"  [not available: {entry.why_not}]"
        owner = "" if entry.owner == "codesign" else f"  (from {entry.owner})"
        click.echo(f"{entry.name:24} {entry.description}{owner}{state}")
