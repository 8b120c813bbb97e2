# SPDX-License-Identifier: Apache-2.0
"""The MnasNet reward, accuracy · (latency / target)^w, maximised with a bound.

The reward is no sum over layers, but it falls with loss and with latency. So a span of latencies
(low, high] has no better reward than the least loss at ``high`` with the latency ``low``; spans
are split, best bound first, until no bound is above the best reward found by more than the
tolerance. Every step is a joint problem (least loss under a latency limit), solved exactly.
Source: Tan et al., MnasNet, CVPR 2019; w is alpha up to the target and beta above it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from codesign.errors import InputError
from codesign.flow.joint.problem import JointProblem
from codesign.flow.joint.result import JointResult
from codesign.solvers.base import Deadline
from codesign.solvers.solution import Status


@dataclass(frozen=True)
class RewardResult:
    """The best design, its reward and a bound that no design exceeds."""

    design: JointResult
    reward: float
    bound: float
    solves: int
    seconds: float

    @property
    def gap(self) -> float:
        """(bound − reward) / reward."""
        return (self.bound - self.reward) / self.reward


def solve_reward(
    problem: JointProblem, solve: Callable[[JointProblem], JointResult], deadline: Deadline
) -> JointResult:  # fmt: skip
    """A problem of objective "reward": its certificate's objective and bound are rewards.

    Without a latency limit the design of least loss bounds the search, since what is slower has no
    less loss. The status is optimal when nothing can be better, feasible within the tolerance.
    """
    start = time.perf_counter()
    asked, spec = replace(problem, reward=None), problem.reward
    assert spec is not None
    if "latency" not in asked.limits:
        slowest = solve(asked)
        if slowest.certificate.status is not Status.OPTIMAL:
            return slowest
        asked = replace(asked, limits={**asked.limits, "latency": slowest.cycles})
    elif solve(asked).certificate.status is not Status.OPTIMAL:
        return solve(asked)  # no design, or time ended: it says why
    found = best_reward(
        asked, spec.accuracy, spec.target_ms, spec.alpha, spec.beta, spec.tolerance, solve, deadline
    )
    proven = found.bound <= found.reward
    certificate = replace(
        found.design.certificate,
        status=Status.OPTIMAL if proven else Status.FEASIBLE,
        objective=Decimal(found.reward),
        bound=Decimal(max(found.bound, found.reward)),
        seconds=time.perf_counter() - start,
    )
    return replace(found.design, certificate=certificate)


def best_reward(
    problem: JointProblem, accuracy: float, target_ms: float, alpha: float = -0.07,
    beta: float = -0.07, tolerance: float = 1e-3,
    solve: Callable[[JointProblem], JointResult] | None = None, deadline: Deadline | None = None,
) -> RewardResult:  # fmt: skip
    """The design of the greatest reward, within ``tolerance`` (relative); ``deadline`` ends early.

    ``accuracy`` is the float network's, in the unit of the loss table (accuracy = it − loss).
    ``problem`` must have been built with objective "loss" and a limit latency_ms, which bounds the
    search, so that both metrics are in use. Raises InputError otherwise, and for powers above 0.
    """
    from codesign.flow.joint import solve as default

    solve = solve or default
    if problem.objective != "loss" or "latency" not in problem.limits:
        raise InputError(
            'a reward needs a problem with objective "loss" and a limit latency_ms; '
            f"got objective {problem.objective!r} and limits {sorted(problem.limits)}"
        )
    if alpha > 0 or beta > 0 or target_ms <= 0:
        raise InputError(
            f"a reward needs alpha and beta of at most 0 and a target above 0, got "
            f"{alpha}, {beta}, {target_ms}"
        )
    start = time.perf_counter()
    clock = problem.device.clock_hz

    def factor(cycles: int) -> float:
        share = cycles / clock * 1e3 / target_ms
        return float(share ** (alpha if share <= 1 else beta))

    others = {name: value for name, value in problem.limits.items() if name != "latency"}
    fastest = solve(replace(problem, objective="latency", limits=others))
    solves = 1
    if fastest.certificate.status is not Status.OPTIMAL or fastest.loss is None:
        raise InputError(f"a reward needs a design without the latency limit: {fastest.why}")
    best = fastest
    reward = (accuracy - float(fastest.loss)) * factor(fastest.cycles)
    # spans of latency with the least loss known to hold in them
    spans: list[tuple[float, int, int]] = []

    def push(low: int, high: int, loss: float) -> None:
        if low <= high:
            heapq.heappush(spans, (-(accuracy - loss) * factor(low), low, high))

    tables = problem.tables
    losses = np.minimum.reduceat(tables.choice_metric("loss"), tables.offsets[:-1])
    least = int(losses.sum()) / 10 ** problem.digits["loss"]
    push(fastest.cycles, problem.limits["latency"], least)
    bound = -spans[0][0] if spans else reward
    while spans:
        top, low, high = heapq.heappop(spans)
        bound = max(reward, -top)
        if -top <= reward * (1 + tolerance) or (deadline is not None and deadline.passed):
            break
        found = solve(replace(problem, limits={**others, "latency": high}))
        solves += 1
        if found.certificate.status is not Status.OPTIMAL or found.loss is None:
            break  # time ended: the fastest design is within every span's limit
        loss = float(found.loss)
        value = (accuracy - loss) * factor(found.cycles)
        if value > reward:
            best, reward = found, value
        # from found.cycles to high nothing is better than found itself
        last = min(high, found.cycles - 1)
        middle = (low + last) // 2
        push(low, middle, loss)
        push(middle + 1, last, loss)
        bound = max(reward, -spans[0][0]) if spans else reward
    return RewardResult(best, reward, bound, solves, time.perf_counter() - start)
