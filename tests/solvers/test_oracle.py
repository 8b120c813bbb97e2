# SPDX-License-Identifier: Apache-2.0
"""Every back end against exhaustive search on generated joint problems."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from codesign.solvers import Limit, Metric, Problem, Proof, Status, parse_problem, registry, solve
from codesign.solvers.problem_file import problem_to_json

EXACT = ("exact", "cp-sat")
FLOAT = ("highs", "cbc")


def compare(problem: Problem, solvers: tuple[str, ...], label: str) -> Status:
    truth = solve(problem, "exhaustive", explain=False)
    for name in solvers:
        answer = solve(problem, name, explain=False)
        assert (answer.status, answer.objective) == (truth.status, truth.objective), (
            f"{name} on {label}: {answer.status} {answer.objective}, "
            f"exhaustive search: {truth.status} {truth.objective}"
        )
        done = answer.architectures_solved + answer.architectures_pruned
        assert done == max(1, len(problem.architectures)), f"{name} on {label}"
    return truth.status


def available(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        found = registry.load(name).availability()
        if not found:
            pytest.skip(f"{name}: {found.why}")
    return names


@pytest.mark.parametrize("block", range(8))
def test_exact_back_ends_agree_with_exhaustive_search(
    generate: Callable[..., Problem], block: int
) -> None:
    seeds = range(block * 40, block * 40 + 40)
    seen = [compare(generate(seed), EXACT, f"seed {seed}") for seed in seeds]
    assert {Status.OPTIMAL, Status.INFEASIBLE} == set(seen)


@pytest.mark.parametrize("solver", FLOAT)
def test_milp_back_ends_agree_with_exhaustive_search(
    generate: Callable[..., Problem], solver: str
) -> None:
    names = available((solver,))
    for seed in range(60):
        compare(generate(seed, 10**6), names, f"seed {seed}")


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_two_thousand_joint_problems(generate: Callable[..., Problem]) -> None:
    names = EXACT + available(FLOAT)
    seen = [compare(generate(seed), names, f"seed {seed}") for seed in range(2000)]
    assert seen.count(Status.INFEASIBLE) > 200


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("size", [10**9, 10**13, 10**16, 10**25])
def test_large_numbers_keep_exact_back_ends_exact(
    generate: Callable[..., Problem], size: int
) -> None:
    for seed in range(2000):
        compare(generate(seed, size), EXACT, f"seed {seed}, size {size}")


@pytest.mark.parametrize(
    ("seed", "size"), [(5, 10**13), (192, 10**13), (787, 10**13), (793, 10**16), (1408, 10**16)]
)
def test_cp_sat_is_right_where_the_presolve_of_9_15_is_wrong(
    generate: Callable[..., Problem], seed: int, size: int
) -> None:
    """google/or-tools #5293: with its default presolve, 9.15 certified worse answers here."""
    compare(generate(seed, size), ("cp-sat",), f"seed {seed}")


def test_cbc_is_right_where_its_preprocessing_is_wrong(generate: Callable[..., Problem]) -> None:
    compare(generate(1843), available(("cbc",)), "seed 1843")


@pytest.mark.parametrize("seed", [109, 306])
def test_cbc_is_tried_again_where_it_crashes_without_preprocessing(
    generate: Callable[..., Problem], seed: int
) -> None:
    compare(generate(seed), available(("cbc",)), f"seed {seed}")


def test_proof_says_what_arithmetic_it_rests_on(generate: Callable[..., Problem]) -> None:
    problem = generate(1, 1000)
    assert solve(problem, "exact", explain=False).proof is Proof.INTEGER
    assert solve(problem, "cbc", explain=False).proof is Proof.FLOAT


def random_arrays(seed: int) -> Problem:
    """Joint tables with a mask over architectures and options, from arrays."""
    rng = np.random.default_rng(seed)
    groups, options, archs = 4, 3, 5
    count = groups * options
    choices = {f"g{g}": [f"o{o}" for o in range(options)] for g in range(groups)}
    cost = rng.integers(0, 50, (archs, count))
    loss = rng.integers(0, 50, count)
    return Problem.build(
        choices=choices,
        architectures=[f"a{a}" for a in range(archs)],
        metrics=[
            Metric.joint("cost", cost),
            Metric.choice("loss", loss, digits=1),
            Metric.joint("heat", rng.integers(0, 20, (archs, count))),
            Metric.architecture("area", rng.integers(0, 9, archs)),
        ],
        minimize="cost",
        limits={"loss": int(loss.sum()) // 40, "heat": 45, "area": 7},
        ties=[["g0", "g2"]] if seed % 2 else [],
        forbid=[[["g1", "o0"], ["g3", "o1"]]],
        allowed=rng.random((archs, count)) < 0.8,
    )


@pytest.mark.parametrize("seed", range(30))
def test_masks_over_architectures_agree_and_survive_the_file(seed: int) -> None:
    problem = random_arrays(seed)
    compare(problem, EXACT, f"seed {seed}")
    again = parse_problem(problem_to_json(problem))
    assert again.allowed is None
    first, second = (solve(p, "exact", explain=False) for p in (problem, again))
    assert (first.status, first.objective) == (second.status, second.objective)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_knapsacks_too_large_for_the_oracle_agree_between_back_ends(seed: int, rows: int) -> None:
    rng = np.random.default_rng([seed, rows])
    groups, options = 25, 4
    count = groups * options
    tables = {f"r{k}": rng.integers(0, 1000, count) for k in range(rows)}
    problem = Problem.build(
        choices={f"g{g}": [f"o{o}" for o in range(options)] for g in range(groups)},
        metrics=[Metric.choice("cost", rng.integers(0, 1000, count))]
        + [Metric.choice(name, table) for name, table in tables.items()],
        minimize="cost",
        limits={name: int(table.sum() / options * 0.7) for name, table in tables.items()},
        forbid=[[["g0", "o1"], ["g7", "o2"]], [["g3", "o0"], ["g4", "o0"], ["g5", "o0"]]],
    )
    ours, theirs = (solve(problem, name, explain=False) for name in EXACT)
    assert (ours.status, ours.objective) == (theirs.status, theirs.objective)


def test_hundreds_of_architectures_agree_with_one_model(
    generate: Callable[..., Problem],
) -> None:
    rng = np.random.default_rng(3)
    groups, options, archs = 8, 3, 60
    cost = rng.integers(1, 40, (archs, groups * options)) * rng.integers(1, 6, (archs, 1))
    loss = rng.integers(0, 100, groups * options)
    problem = Problem.build(
        choices={f"g{g}": [f"o{o}" for o in range(options)] for g in range(groups)},
        architectures=[f"a{a}" for a in range(archs)],
        metrics=[Metric.joint("cost", cost), Metric.choice("loss", loss)],
        minimize="cost",
        limits={"loss": int(loss.sum() / options * 0.6)},
    )
    ours = solve(problem, "exact")
    assert ours.objective == solve(problem, "cp-sat").objective
    assert ours.objective == solve(problem, "exhaustive").objective
    assert ours.architectures_solved < 20
    hopeless = problem.with_limits([Limit("loss", "max", 0)])
    assert solve(hopeless, "exact").status is Status.INFEASIBLE
