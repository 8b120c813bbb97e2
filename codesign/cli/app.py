# SPDX-License-Identifier: Apache-2.0
"""The commands: each reads its options, calls one verb of the flow and prints the result.

Heavy modules are imported inside the commands, so that ``codesign --help`` is instant.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from codesign import __version__
from codesign.cli import show
from codesign.errors import VerifyError

if TYPE_CHECKING:
    from codesign.flow.options import DesignOptions
    from codesign.flow.progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
SEED = click.IntRange(min=0)


@click.group(
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def app() -> None:
    """Choose number formats, tiling and architecture of a network by exact integer programs."""


def _progress(json: bool) -> Progress:
    from codesign.cli.progress import RichProgress

    return RichProgress()


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def _limit(text: str) -> tuple[str, float, str]:
    name, sign, value = text.partition("=")
    try:
        return name, float(value.removesuffix("%")), "%" if value.endswith("%") else ""
    except ValueError:
        given = f"--limit {text}"
        raise click.UsageError(
            f"{given}: expected NAME=NUMBER, e.g. --limit bops=1e9 or --limit size=60%"
            if sign
            else f"{given}: expected NAME=NUMBER, got no '='"
        ) from None


json_option = click.option("--json", "json", is_flag=True, help="Machine output on stdout.")
folder_argument = click.argument("folder", metavar="DIR", type=PATH)
out_option = click.option("--out", type=PATH, required=True, help="Folder of the design.")


def shared(command: Command) -> Command:
    """Options that every command takes (DESIGN, section 4), so that scripts can pass one set.

    Those a command declares itself are left alone; the others are taken and have no effect
    there, which its help says.
    """
    own = {param.name for param in getattr(command, "__click_params__", [])}
    help = "Taken everywhere; no effect here."
    rest = [
        click.option("--calib", type=PATH, help=help),
        click.option("--eval", "eval_", type=PATH, help=help),
        click.option("--seed", type=SEED, default=0, help=help),
        click.option("--time-limit", type=float, help=help),
        click.option("--jobs", type=int, default=1, help=help),
    ]
    ignored = ["calib", "eval_", "seed", "time_limit", "jobs"]
    missing = [(name, option) for name, option in zip(ignored, rest) if name not in own]

    @functools.wraps(command)
    def taking(*given: Any, **options: Any) -> Any:
        for name, _ in missing:
            options.pop(name)
        return command(*given, **options)

    for _, option in reversed(missing):
        taking = option(taking)
    return cast(Command, taking)


rpc_options = _options(
    click.option(
        "--rpc", metavar="HOST:PORT", help="Measure and tune on a device behind a TVM tracker."
    ),
    click.option("--rpc-key", metavar="KEY", help="The device's name at the tracker."),
)

design_options = _options(
    rpc_options,
    click.argument("network", metavar="NETWORK"),
    click.option(
        "--target", default="host", show_default=True, help="See `codesign list targets`."
    ),
    click.option("--weights", type=PATH, help="Weights file of a zoo network."),
    click.option("--calib", type=PATH, help=".npz with array x: calibration inputs."),
    click.option("--eval", "eval_", type=PATH, help=".npz with arrays x, y: accuracy data."),
    click.option(
        "--formats",
        default="w8a8,w4a8",
        show_default=True,
        help="Number formats to choose from; the first is the reference.",
    ),
    click.option(
        "--objective",
        default="auto",
        show_default=True,
        help="latency, size, loss or bops; FPGA boards: latency, size, loss, throughput, energy or "
        "traffic. auto: loss under a latency or size limit, else size (boards: latency).",
    ),
    click.option("--max-latency-ms", type=float, help="Limit on the sum of layer latencies."),
    click.option(
        "--max-size-kb", type=float, help="Limit on weights and biases (kB = 1000 bytes)."
    ),
    click.option("--max-drop", type=float, help="Accuracy points that may be lost (needs --eval)."),
    click.option("--min-accuracy", type=float, help="Percent (needs --eval)."),
    click.option("--loss-budget", type=float, help="0..1 between least and greatest total loss."),
    click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Any other limit."),
    click.option(
        "--sensitivity",
        default="auto",
        show_default=True,
        help="hessian, measured, noise, weight-only; auto: measured with --calib.",
    ),
    click.option(
        "--calibration", default="mse", show_default=True, help="minmax, percentile, mse, entropy."
    ),
    click.option(
        "--samples", type=int, default=512, show_default=True, help="Calibration inputs to use."
    ),
    click.option("--equalise", is_flag=True, help="Cross-layer equalisation before quantizing."),
    click.option("--no-bias-correction", is_flag=True),
    click.option(
        "--rounds",
        type=int,
        default=8,
        show_default=True,
        help="Most designs measured to meet an accuracy limit.",
    ),
    click.option(
        "--solver", default="auto", show_default=True, help="See `codesign list solvers`."
    ),
    click.option("--batch", type=int, default=1, show_default=True),
    click.option("--seed", type=SEED, default=0, show_default=True),
    click.option(
        "--explain", type=float, default=5.0, show_default=True,
        help="Seconds to work out what limits are worth and other formats cost; 0: none.",
    ),
    click.option("--time-limit", type=float, help="Seconds for each solve."),
    click.option(
        "--jobs", type=int, default=1, show_default=True, help="Processes of `codesign pareto`."
    ),
    out_option,
    json_option,
)


def _design_options(
    network: str, limits: Sequence[str], formats: str, **rest: Any
) -> DesignOptions:
    from codesign.flow.options import DesignOptions

    rest["eval"] = rest.pop("eval_")
    rest["bias_correction"] = not rest.pop("no_bias_correction")
    return DesignOptions(
        network=network,
        formats=tuple(part.strip() for part in formats.split(",") if part.strip()),
        limits=tuple(map(_limit, limits)),
        **rest,
    )


@app.command()
@design_options
def design(out: Path, json: bool, **given: Any) -> None:
    """Choose the best design; writes OUT/design.json."""
    from codesign.flow.choose import design as choose

    show.design(choose(_design_options(**given), out, _progress(json)), out, json)


synthesise_option = click.option(
    "--synthesise", is_flag=True,
    help="Synthesise an FPGA design's accelerator by yosys, for the report (minutes and more).",
)  # fmt: skip


place_option = click.option(
    "--place/--no-place", default=True, show_default=True,
    help="Place and route a design for an ECP5 board (slow: 16 minutes to hours).",
)  # fmt: skip


tune_option = click.option(
    "--tune", metavar="BUDGET",
    help="First find faster tiles: a number of trials (200) or a time (60s, 5m).",
)  # fmt: skip


@app.command()
@design_options
@tune_option
@synthesise_option
@place_option
def run(
    out: Path, tune: str | None, synthesise: bool, place: bool, json: bool, **given: Any
) -> None:
    """Design, build, verify, measure and report, in one go."""
    from codesign.flow.everything import run as run_all

    options = _design_options(**given)
    show.outcome(run_all(options, out, _progress(json), synthesise, place, tune), out, json)


@app.command()
@shared
@folder_argument
@tune_option
@rpc_options
@synthesise_option
@place_option
@json_option
def build(
    folder: Path, tune: str | None, rpc: str | None, rpc_key: str | None, synthesise: bool,
    place: bool, json: bool,
) -> None:  # fmt: skip
    """Compile the design in DIR for its target."""
    from codesign.flow.building import build as build_it

    made = build_it(folder, _progress(json), tune, place, rpc=rpc, rpc_key=rpc_key)
    if synthesise:
        from codesign.flow.synthesis import synthesise as synthesise_it

        synthesise_it(folder, _progress(json))
    show.place("build", made, json)


@app.command()
@shared
@folder_argument
@click.option("--calib", type=PATH, help="Real inputs (array x) instead of the design's own.")
@click.option("--eval", "eval_", type=PATH, help="Real inputs (arrays x, y), before --calib.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of random inputs.")
@click.option("--waves", type=PATH, help="FST file of one simulated image (FPGA boards).")
@click.option("--wave-cycles", metavar="FIRST:LAST", default="0:100000", show_default=True)
@json_option
def verify(
    folder: Path, calib: Path | None, eval_: Path | None, seed: int, waves: Path | None,
    wave_cycles: str, json: bool,
) -> None:  # fmt: skip
    """Climb the ladder: one line a rung; exit code 1 if one fails."""
    from codesign.flow.everything import require_exact
    from codesign.flow.ladder import verify as climb

    if waves is not None:
        from codesign.flow.waves import parse_cycles, record

        record(folder, waves, parse_cycles(wave_cycles), seed, _progress(json))
    rungs = climb(folder, _progress(json), data=eval_ or calib, seed=seed)
    show.ladder(rungs, json)
    try:
        require_exact(rungs, folder)
    except VerifyError as error:
        raise show.Answered(error) from None


@app.command()
@shared
@folder_argument
@click.option("--refine", is_flag=True, help="Choose again under measured latencies.")
@rpc_options
@tune_option
@json_option
def measure(
    folder: Path, refine: bool, rpc: str | None, rpc_key: str | None, tune: str | None, json: bool
) -> None:
    """Time the built network and its layers on the target."""
    from codesign.flow.building import build as build_it
    from codesign.flow.measuring import measure as time_it

    if tune is not None:
        build_it(folder, _progress(json), tune, rpc=rpc, rpc_key=rpc_key)
    found = time_it(folder, refine, _progress(json), rpc=rpc, rpc_key=rpc_key)
    show.measured(found, json)


@app.command()
@shared
@folder_argument
@json_option
def report(folder: Path, json: bool) -> None:
    """Write DIR/report.html and DIR/report.json."""
    from codesign.flow.report import report as write

    show.place("report", write(folder, _progress(json)), json)


@app.command()
@shared
@click.argument("network", metavar="NETWORK")
@click.option("--target", default="host", show_default=True)
@click.option("--weights", type=PATH)
@click.option("--batch", type=int, default=1, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--raw", is_flag=True, help="Before the standard passes.")
@json_option
def inspect(
    network: str, target: str, weights: Path | None, batch: int, seed: int, raw: bool, json: bool
) -> None:
    """Print the IR, shapes and MACs of a network, and what the target can take."""
    from codesign.flow.inspecting import inspect as look

    with _progress(json).task(f"Loading {network}"):
        facts = look(network, target=target, weights=weights, batch=batch, seed=seed, raw=raw)
    show.inspection(facts, json)


@app.command()
@shared
@click.argument("file", metavar="FILE.ir", type=PATH)
@click.option("--passes", default="", help='For example "fold-batch-norm,fuse{add=false}".')
@click.option("--print-after", multiple=True, help="A pass's name, or all: print the IR after it.")
@click.option("--timing", is_flag=True, help="Seconds of each pass, to stderr.")
@click.option("-o", "--output", type=PATH, help="Write here instead of stdout.")
@json_option
def opt(
    file: Path,
    passes: str,
    print_after: tuple[str, ...],
    timing: bool,
    output: Path | None,
    json: bool,
) -> None:
    """Text IR in, passes, text IR out ("-" reads standard input)."""
    from codesign.flow.inspecting import optimise

    text, table = optimise(file, passes, print_after)
    if timing:
        click.echo(table, err=True)
    if json:
        show.document({"ir": text, "timing": table})
    else:
        show.text(text, output)


@app.command()
@shared
@click.argument("problem", metavar="PROBLEM.json", type=PATH)
@click.option("--solver", default="auto", show_default=True, help="See `codesign list solvers`.")
@click.option("--time-limit", type=float, help="Seconds.")
@click.option("-o", "--output", type=PATH, help="Write the solution here too.")
@click.option(
    "--explain", type=float, default=0.0, show_default=True, metavar="SECONDS",
    help="Work out which limits bind, what more of each is worth and what other options cost.",
)
@json_option
def solve(
    problem: Path, solver: str, time_limit: float | None, output: Path | None, explain: float,
    json: bool,
) -> None:  # fmt: skip
    """Solve a problem file; exit code 3 if it is infeasible."""
    from codesign.flow.solving import explain_file, solve_file

    with _progress(json).task(f"Solving {problem}"):
        found = solve_file(problem, solver, time_limit, output)
    why = None
    if explain and found.choices is not None:
        with _progress(json).task(f"Explaining, at most {explain:g} s"):
            why = explain_file(problem, solver, explain)
    show.solution(found, output, json, why)


@app.command("list")
@shared
@click.argument("kind", type=click.Choice(["passes", "targets", "solvers", "formats"]))
@json_option
def list_(kind: str, json: bool) -> None:
    """What there is, whether it can be used here, and why not."""
    from codesign.flow.listing import listing

    show.listing(listing(kind), json)


import codesign.cli.pareto  # noqa: E402, F401  (registers its command on ``app``)
