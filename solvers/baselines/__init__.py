# SPDX-License-Identifier: Apache-2.0
"""Searches without a proof, to compare the exact solver with: problem in, checked solution out.

``run`` is the way in; ``BASELINES`` names them. They are not offered as ``--solver``: none of them
can say how far from the best its answer is.
"""

from __future__ import annotations

from codesign.registry import Registry
from codesign.solvers.baselines.base import Baseline, Improvement, Run, run

BASELINES = Registry(
    kind="baseline",
    group="codesign.baselines",
    builtin={
        "random": "codesign.solvers.baselines.random_search:RandomSearch",
        "annealing": "codesign.solvers.baselines.annealing:Annealing",
        "greedy": "codesign.solvers.baselines.greedy:Greedy",
        "nsga2": "codesign.solvers.baselines.nsga2:Nsga2",
        "nsga2-predicted": "codesign.solvers.baselines.predicted:Predicted",
        "mnasnet": "codesign.solvers.baselines.mnasnet:MnasNet",
    },
)
"""Every baseline by name."""

__all__ = ["BASELINES", "Baseline", "Improvement", "Run", "run"]
