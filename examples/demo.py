# SPDX-License-Identifier: Apache-2.0
"""The main path on real images, offline: `make demo`.

Trains a small CNN on scikit-learn's digits, lets the solver choose each layer's number format so
that the network is as small as it can be while at most half a point of accuracy is lost, builds
it for this machine, verifies it bit for bit, measures it and writes a report. Then the same network
as an accelerator for the ULX3S board (ECP5-85): chosen by the solver, generated, synthesised,
placed and routed to a bitstream, which takes twenty minutes, and simulated cycle by cycle on real
images. ``--no-place`` ends before the bitstream; ``--no-fpga`` leaves the board out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from train_digits import train

from codesign.cli import show
from codesign.cli.progress import RichProgress
from codesign.flow.everything import run
from codesign.flow.options import DesignOptions
from codesign.targets.fpga.programs import why_no_program

BOARD = "ulx3s-85f"


def main() -> None:
    """Run the demo into ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fpga", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--place", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    data = out / "data"
    if not (data / "eval.npz").is_file():
        data.mkdir(parents=True, exist_ok=True)
        train(data, seed=arguments.seed)
    files = {
        "weights": data / "digits.pt", "calib": data / "calib.npz", "eval": data / "eval.npz",
    }  # fmt: skip
    options = DesignOptions(
        "zoo:digits",
        formats=("w8a8", "w6a8", "w4a8", "w3a8", "w2a8"),
        objective="size",
        max_drop=0.5,
        seed=arguments.seed,
        **files,
    )
    show.outcome(run(options, out / "design", RichProgress()), out / "design", json=False)
    if arguments.fpga:
        fpga(out / "fpga", files, arguments.seed, arguments.place)


def fpga(out: Path, files: dict[str, Path], seed: int, place: bool) -> None:
    """The network on an ECP5: simulated, and placed where the tools are there."""
    if missing := why_no_program("verilator"):
        print(f"no FPGA design: {missing}")
        return
    if place and (missing := why_no_program("yosys", "nextpnr-ecp5", "ecppack")):
        print(f"the FPGA design is simulated, not placed: {missing}")
        place = False
    if place:
        print(
            "The FPGA design is synthesised, placed and routed, twenty minutes the first time; "
            "leave that out with: make demo DEMO_ARGS=--no-place", flush=True,
        )  # fmt: skip
    options = DesignOptions(
        "zoo:digits", target=BOARD, formats=("w8a8",), seed=seed, explain=0.0, **files,
    )  # fmt: skip
    show.outcome(run(options, out, RichProgress(), place=place), out, json=False)


if __name__ == "__main__":
    main()
