# SPDX-License-Identifier: Apache-2.0
"""The exact solver's parts, each against brute force."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.solvers import Problem
from codesign.solvers.base import Deadline
from codesign.solvers.certify import violations
from codesign.solvers.formulate import lower
from codesign.solvers.knapsack import Knapsack, solve_knapsack, undominated
from codesign.solvers.lagrange import Relaxation, bounds_of_all
from codesign.solvers.limbs import split
from codesign.solvers.model import Constraint, Linear, Model, Variable
from codesign.solvers.problem import IntArray
from codesign.solvers.reduce import reduce_problem


def random_knapsack(seed: int, big: bool = False) -> Knapsack:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, rng.integers(1, 6))
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    count, rows = int(offsets[-1]), int(rng.integers(0, 4))
    factor = 10**25 if big else 1

    def table() -> IntArray:
        values = rng.integers(-20, 60, count)
        return np.array([int(v) * factor for v in values], dtype=object) if big else values

    weights = tuple(table() for _ in range(rows))
    bounds = tuple(
        int(sum(int(w[int(offsets[g]) : int(offsets[g + 1])].min()) for g in range(len(sizes))))
        + int(rng.integers(-5, 60)) * factor
        for w in weights
    )
    clauses = []
    if len(sizes) > 1:
        for _ in range(int(rng.integers(0, 3))):
            groups = rng.choice(len(sizes), 2, replace=False)
            clauses.append(
                tuple(int(rng.integers(offsets[g], offsets[g + 1])) for g in sorted(groups))
            )
    return Knapsack(offsets, table(), weights, bounds, tuple(clauses))


def picks(knapsack: Knapsack) -> list[tuple[int, tuple[int, ...]]]:
    """Every feasible pick with its cost."""
    ranges = [
        range(int(a), int(b)) for a, b in zip(knapsack.offsets, knapsack.offsets[1:])
    ]
    found = []
    for pick in product(*ranges):
        fits = all(
            sum(int(w[j]) for j in pick) <= bound
            for w, bound in zip(knapsack.weights, knapsack.bounds)
        )
        if fits and not any(set(clause) <= set(pick) for clause in knapsack.clauses):
            found.append((sum(int(knapsack.cost[j]) for j in pick), pick))
    return found


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_lagrangian_bounds_never_exceed_a_feasible_cost(seed: int, big: bool) -> None:
    knapsack = random_knapsack(seed, big)
    relaxation = Relaxation.of(knapsack.offsets, knapsack.cost, knapsack.weights, knapsack.bounds)
    costs = [cost for cost, _ in picks(knapsack)]
    u = relaxation.best(stop=float(knapsack.ranges()[1]) * 2 + 1)
    rng = np.random.default_rng(seed)
    for point in (u, np.zeros(len(u)), rng.random(len(u)) * 3):
        height = relaxation.value(point)[0] - relaxation.margin(point)
        many = bounds_of_all(
            knapsack.offsets,
            relaxation.cost[None, :],
            list(relaxation.weights),
            relaxation.bounds,
            point,
            np.arange(1),
        )
        if costs:
            assert height <= min(costs)
            assert many[0] <= min(costs)
    if costs:
        zero = relaxation.value(np.zeros(len(u)))[0]
        assert relaxation.value(u)[0] >= zero - relaxation.margin(u)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("seed", range(80))
def test_the_knapsack_search_is_exact_under_any_cutoff(seed: int, big: bool) -> None:
    knapsack = random_knapsack(seed, big)
    relaxation = Relaxation.of(knapsack.offsets, knapsack.cost, knapsack.weights, knapsack.bounds)
    u = relaxation.best()
    feasible = picks(knapsack)
    best = min((cost for cost, _ in feasible), default=None)
    cutoffs = [None] if best is None else [None, best, best - 1, best + 7]
    for cutoff in cutoffs:
        found = solve_knapsack(knapsack, cutoff, Deadline.after(None), relaxation, u)
        assert found.proven
        if best is None or (cutoff is not None and cutoff < best):
            assert found.columns is None
        else:
            assert found.cost == found.bound == best
            assert (best, found.columns) in feasible


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 2)),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 2),
)
def test_dominance_keeps_one_of_every_best_state(
    states: list[tuple[int, int, int, int]], rows: int
) -> None:
    table = np.array(states)
    weights = [table[:, 1 + k] for k in range(rows)]
    kept = undominated(table[:, 0], weights, table[:, 3], table[:, 0].astype(float))
    left = {tuple(table[place]) for place in kept}

    def covers(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return a[3] == b[3] and all(a[k] <= b[k] for k in range(1 + rows))

    for state in states:
        assert any(covers(other, state) for other in left)
    if rows < 2:
        assert len({(s[0], s[1] if rows else 0, s[3]) for s in left}) == len(kept)


def total(table: IntArray, arch: int, pick: tuple[int, ...]) -> int:
    row = table[arch] if table.ndim == 2 else table
    return sum(int(row[j]) for j in pick)


@pytest.mark.parametrize("seed", range(150))
def test_lifting_any_answer_of_the_smaller_form_gives_one_of_the_problem(
    generate: Callable[..., Problem], seed: int
) -> None:
    problem = generate(seed, 1000)
    reduced = reduce_problem(problem)
    sign = -1 if problem.maximize else 1
    if reduced.empty:
        return
    ranges = [range(int(a), int(b)) for a, b in zip(reduced.offsets, reduced.offsets[1:])]
    for arch in range(len(reduced.archs)):
        position = reduced.architecture(arch)
        for pick in list(product(*ranges))[:50]:
            choice = reduced.lift(pick)
            cost = int(reduced.base[arch]) + total(reduced.cost, arch, pick)
            assert sign * cost == problem.total(problem.metric, choice, position)
            good = all(total(row.weights, arch, pick) <= row.bound for row in reduced.rows)
            good &= not any(
                clause.arch in (-1, arch) and set(clause.columns) <= set(pick)
                for clause in reduced.clauses
            )
            if reduced.mask is not None:
                good &= all(reduced.mask[arch, j] for j in pick)
            assert good == (not violations(problem, choice, position))


@pytest.mark.parametrize("seed", range(60))
def test_numbers_beyond_64_bits_split_without_changing_the_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 5

    def number() -> int:
        return int(rng.integers(-(10**9), 10**9)) * 10**18 + int(rng.integers(0, 10**18))

    rows = tuple(
        Constraint(
            f"r{k}",
            Linear(tuple(range(count)), tuple(number() for _ in range(count)), number()),
            number() if k == 0 else None,
            number() if k else None,
        )
        for k in range(2)
    )
    model = Model(
        "big",
        tuple(Variable(f"x{j}") for j in range(count)),
        rows,
        Linear(tuple(range(count)), tuple(number() for _ in range(count)), number()),
    )
    small = split(model)
    for values in product((0, 1), repeat=count):
        carries = small.model.variables[count:]
        extended = list(values) + [0] * len(carries)
        # each carry has a row that bounds it from below; take the least value it allows
        for place in range(len(carries)):
            column = count + place
            row = next(
                r for r in small.model.constraints
                if column in r.expression.columns and min(r.expression.coefficients) <= -(2**40)
            )
            at = row.expression.columns.index(column)
            rest = row.expression.value(extended)
            assert row.upper is not None
            assert row.expression.coefficients[at] == -(2**40)
            extended[column] = max(0, -((row.upper - rest) // 2**40))
        good = not small.model.violations(extended)
        assert good == (not model.violations(values))
        if good:
            total = sum(w * level.value(extended) for w, level in zip(small.weights, small.levels))
            assert total == model.objective.value(values)


def test_models_of_generated_problems_hold_only_integers(generate: Callable[..., Problem]) -> None:
    for seed in range(60):
        model = lower(generate(seed)).model
        if model is not None:
            numbers = [c for row in model.constraints for c in row.expression.coefficients]
            assert set(map(type, [*numbers, *model.objective.coefficients])) <= {int}
