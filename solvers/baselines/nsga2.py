# SPDX-License-Identifier: Apache-2.0
"""NSGA-II through pymoo (Deb et al., 2002; Blank and Deb, 2020), as DyNAS-T searches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from codesign.solvers.baselines.base import Baseline, Recorder
from codesign.solvers.baselines.space import Floats, Ints, Space

Pricing: TypeAlias = Callable[[Ints, Ints], tuple[Floats, Floats]]
"""(architectures, columns) to (objective, violation)."""

_RESTARTS = 3


@dataclass
class Nsga2(Baseline):
    """Objective against the total of the first limit, all limits as constraints."""

    name = "nsga2"
    takes_measure = True
    summary = "NSGA-II of pymoo: objective against the first limit's total (as DyNAS-T)"
    modules: ClassVar[tuple[str, ...]] = ("pymoo",)
    population: int = 100

    def prepare(self) -> None:
        import_pymoo()

    def search(self, space: Space, record: Recorder, rng: np.random.Generator) -> None:
        for _ in range(_RESTARTS):  # it ends by itself only where it finds no new child
            if record.stop:
                return
            size = min(self.population, record.room)
            evolve(space, record.price, rng, size, lambda: record.stop)


def import_pymoo() -> None:
    """Import what ``evolve`` uses."""
    import pymoo.algorithms.moo.nsga2
    import pymoo.operators.crossover.sbx
    import pymoo.operators.mutation.pm
    import pymoo.operators.repair.rounding  # noqa: F401


def evolve(
    space: Space,
    price: Pricing,
    rng: np.random.Generator,
    population: int,
    stop: Callable[[], bool],
    first: tuple[Ints, Ints] | None = None,
) -> tuple[Ints, Ints]:
    """Generations until ``stop`` or no new children appear; the last population."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as Vectorised
    from pymoo.core.termination import NoTermination
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair

    def decode(x: Any) -> tuple[Ints, Ints]:
        genes = np.rint(np.asarray(x, dtype=np.float64)).astype(np.int64)
        return genes[:, 0], genes[:, 1:] + space.starts

    class Question(Vectorised):  # type: ignore[misc]
        def __init__(self) -> None:
            upper = np.concatenate(([space.archs - 1], space.sizes - 1))
            super().__init__(
                n_var=len(upper),
                n_obj=2 if space.weights else 1,
                n_ieq_constr=1,
                xl=np.zeros(len(upper)),
                xu=upper,
                vtype=int,
            )

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            archs, columns = decode(x)
            cost, violation = price(archs, columns)
            out["F"] = cost[:, None]
            if space.weights:
                used = space.total(space.weights[0], archs, columns)
                out["F"] = np.stack([cost, used], axis=1)
            out["G"] = np.where(violation <= 1e-9, 0.0, violation)[:, None]

    archs, columns = space.sample(rng, population) if first is None else first
    sampling = np.concatenate([archs[:, None], columns - space.starts], axis=1)
    algorithm = NSGA2(
        pop_size=len(sampling),
        sampling=sampling,
        crossover=SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
        n_max_iterations=1,
    )
    algorithm.setup(
        Question(), termination=NoTermination(), seed=int(rng.integers(1 << 31)), verbose=False
    )
    while not stop() and algorithm.has_next():
        children = algorithm.ask()
        # where nearly every child is a twin, the population is the whole space or stuck
        if children is None or (algorithm.is_initialized and len(children) * 4 < len(sampling)):
            break
        algorithm.evaluator.eval(algorithm.problem, children)
        algorithm.tell(infills=children)
    # no time for even one generation: what it would have started from
    return (archs, columns) if algorithm.pop is None else decode(algorithm.pop.get("X"))
