# SPDX-License-Identifier: Apache-2.0
"""The main path on real images, offline: `make demo`.

Trains a small CNN on scikit-learn's digits, lets the solver choose each layer's number format so
that the network is as small as it can be while at most half a point of accuracy is lost, builds
it for this machine, verifies it bit for bit, measures it and writes a report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from train_digits import train

from codesign.cli import show
from codesign.cli.progress import RichProgress
from codesign.flow.everything import run
from codesign.flow.options import DesignOptions


def main() -> None:
    """Run the demo into ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out
    data = out / "data"
    if not (data / "eval.npz").is_file():
        data.mkdir(parents=True, exist_ok=True)
        train(data, seed=arguments.seed)
    options = DesignOptions(
        "zoo:digits",
        weights=data / "digits.pt",
        calib=data / "calib.npz",
        eval=data / "eval.npz",
        formats=("w8a8", "w6a8", "w4a8", "w3a8", "w2a8"),
        objective="size",
        max_drop=0.5,
        seed=arguments.seed,
    )
    show.outcome(run(options, out / "design", RichProgress()), out / "design", json=False)


if __name__ == "__main__":
    main()
