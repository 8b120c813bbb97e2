# SPDX-License-Identifier: Apache-2.0
"""The joint solver against exhaustive search, and what it says of bad input."""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from codesign.errors import InfeasibleError, InputError
from codesign.flow.joint import Reward, best_reward, joint_problem
from codesign.flow.joint import solve as solve_joint
from codesign.flow.joint.problem import PriceStore
from codesign.flow.joint.search import Search
from codesign.solvers.base import Deadline
from codesign.solvers.decimals import to_decimal
from codesign.solvers.exact import Exact
from codesign.solvers.solution import Status
from codesign.space.accelerator import Accelerator
from codesign.space.generate import DenseKind, SpaceOptions
from codesign.space.workload import Chain, Layer, LayerShape, Workload, with_variants
from tests.space.conftest import Question, designs, draw_question, oracle

BOARDS = ("ultra96", "pynq-z2", "ulx3s-85f")


def check(seed: int) -> None:
    question, board = draw_question(seed), BOARDS[seed % 3]
    try:
        problem = joint_problem(
            question.workload, board, space=question.options, **question.arguments
        )
    except InfeasibleError:  # ties and forbids leave nothing: so must the oracle find
        assert oracle(question, board, "cycles") is None
        return
    result = solve_joint(problem, tolerance=0)
    proof = result.certificate
    dropped = problem.tables.split and problem.drop_dominated
    expected = oracle(question, board, problem.tables.by, dropped)
    if expected is None:
        assert proof.status is Status.INFEASIBLE
        assert result.accelerator is None
        return
    assert proof.status is Status.OPTIMAL
    assert proof.objective == proof.bound == to_decimal(expected, problem.digits[problem.objective])
    assert proof.solved + proof.pruned == proof.undominated <= proof.generated
    assert result.accelerator is not None
    assert result.resources is not None
    assert not result.resources.excess(problem.device)


@pytest.mark.parametrize("block", range(12))
def test_exhaustive_search_agrees(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        check(seed)


def test_least_values_of_what_depends_on_the_accelerator() -> None:
    """Bounds from below say nothing of a least energy or latency (found by the full count)."""
    for seed in (10_476, 10_578):
        check(seed)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(200))
def test_exhaustive_search_agrees_soak(block: int) -> None:
    for seed in range(10_000 + 10 * block, 10_000 + 10 * block + 10):
        check(seed)


def solve(seed: int, **changes: Any) -> Any:
    question = draw_question(seed)
    arguments = {**question.arguments, **changes}
    return solve_joint(
        joint_problem(question.workload, "pynq-z2", space=question.options, **arguments)
    )


@pytest.mark.parametrize("seed", range(5))
def test_relaxing_never_worsens(seed: int) -> None:
    base = {"objective": "latency", "ties": (), "forbid": ()}
    values = []
    for share in (1, Decimal("0.6"), Decimal("0.3"), 0):
        found = solve(seed, limits={}, loss_budget=share, **base).certificate
        assert found.status in (Status.OPTIMAL, Status.INFEASIBLE)
        values.append(found.objective if found.objective is not None else Decimal("inf"))
    assert values == sorted(values)
    apart, fused = (
        solve(seed, limits={}, loss_budget=1, **base, fusion=f).certificate.objective
        for f in (False, True)
    )
    assert fused <= apart


@pytest.mark.parametrize("seed", range(3))
def test_scaling_losses_and_permuting_layers_changes_nothing(seed: int) -> None:
    question = draw_question(seed)
    loss = question.arguments["loss"]
    base = {"objective": "latency", "limits": {}, "loss_budget": Decimal("0.4")}
    one = solve(seed, **base)
    larger = {n: {f: v * 1000 for f, v in row.items()} for n, row in loss.items()}
    scaled = solve(seed, **{**base, "loss": larger})
    assert scaled.certificate.objective == one.certificate.objective
    work = question.workload
    order = list(range(len(work.layers)))[::-1]
    place = {old: new for new, old in enumerate(order)}

    def move(at: int | None) -> int | None:
        return None if at is None else place[at]

    turned = Workload(
        work.name,
        tuple(work.layers[i] for i in order),
        tuple(
            Chain(move(c.expand), place[c.depthwise], move(c.project), c.local_residual)
            for c in work.chains
        ),
        work.vector_ops,
    )
    arguments = {**question.arguments, **base}
    turned_problem = joint_problem(turned, "pynq-z2", space=question.options, **arguments)
    other = solve_joint(turned_problem)
    assert other.certificate.objective == one.certificate.objective


def test_measured_cycles_replace_the_model() -> None:
    question = draw_question(0)
    name = question.workload.layers[-1].name
    base = {"objective": "latency", "limits": {}, "ties": (), "forbid": ()}
    formats = question.arguments["formats"].split(",")
    slow = {(name, f): 10**9 for f in formats[1:]}
    result = solve(0, **base, measured={**slow, (name, formats[0]): 5})
    chosen = {layer.name: layer for layer in result.layers}[name]
    assert (chosen.format, chosen.cycles) == (formats[0], 5)


def test_time_limit_gives_a_true_gap() -> None:
    question = draw_question(3)
    free: dict[str, Any] = {"limits": {}, "ties": (), "forbid": (), "objective": "latency"}
    arguments = {**question.arguments, **free}
    problem = joint_problem(question.workload, "pynq-z2", space=question.options, **arguments)
    early = solve_joint(problem, time_limit=1e-9).certificate
    assert early.status is Status.UNKNOWN
    assert (early.objective, early.bound, early.gap) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "speed"}, "unknown objective 'speed' (known: latency, throughput, energy, "
         "traffic, loss, size, dsp, lut, ff, ramb18, reward)"),
        ({"limits": {"latency": 3}}, "unknown limit 'latency' (known: latency_ms, fps, energy_uj, "
         "traffic_kb, loss, size_kb, dsp, lut, ff, ramb18)"),
        ({"limits": {"loss": float("nan")}}, "limit 'loss' is nan; expected a number from 0 on"),
        ({"limits": {"dsp": -1}}, "limit 'dsp' is -1; expected a number from 0 on"),
        ({"limits": {"loss": {"least": 1}}}, "limit 'loss' is {'least': 1}; expected a number, or "
         '{"min": …, "max": …}'),
        ({"limits": {"loss": {"min": 3, "max": 2}}}, "limit 'loss': min 3 is above max 2; nothing "
         "is between"),
        ({"limits": {"fps": {"max": 2}}}, "limit 'fps' is a least rate; it takes no max"),
        ({"objective": "reward", "reward": Reward(1.0, 0.0)}, "a reward needs alpha and beta of at "
         "most 0, a target above 0 and a tolerance of at least 0, got -0.07, -0.07, 0.0, 0.0"),
        ({"loss": None, "objective": "loss"}, "a loss is minimised or limited, but no loss table "
         "is given; give loss="),
        ({"loss": {}}, "loss: layer 'l0' is missing"),
        ({"loss_budget": 2}, "loss_budget is 2; expected a share from 0 to 1"),
        ({"formats": "float"}, "format 'float' does not run on an FPGA engine; give wNaM formats"),
        ({"ties": [["l0", "l9"]]}, "tie: unknown layer 'l9' (known: l0, l1)"),
    ],
)  # fmt: skip
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    seed = next(s for s in range(99) if len(draw_question(s).workload.layers) == 2)
    base = {"limits": {}, "ties": (), "forbid": (), "objective": "latency"}
    with pytest.raises(InputError) as raised:
        solve(seed, **{**base, **changes})
    assert str(raised.value) == message


def test_losses_of_floats_are_rounded_once() -> None:
    question = draw_question(0)
    formats = question.arguments["formats"].split(",")
    loss = {layer.name: dict.fromkeys(formats, 1 / 3) for layer in question.workload.layers}
    result = solve(0, loss=loss, limits={}, objective="loss", ties=(), forbid=())
    assert result.loss == len(question.workload.layers) * Decimal("0.333333333")


@pytest.mark.parametrize("seed", [1, 4, 7, 9])
def test_reward_against_all_designs(seed: int) -> None:
    question = draw_question(seed)
    limits = {"latency_ms": Decimal(1000)}
    question.arguments.update(objective="loss", limits=limits, ties=(), forbid=())
    problem = joint_problem(
        question.workload, "pynq-z2", space=question.options, **question.arguments
    )
    clock = problem.device.clock_hz
    target = 0.2
    best = 0.0
    for values, runs in designs(question, "pynq-z2", problem.tables.by):
        latency = values["latency"][runs].min() / clock * 1e3 / target
        power = -0.1 if latency <= 1 else -0.3
        best = max(best, (50 - values["loss"][0] / 100) * latency**power)
    found = best_reward(problem, 50.0, target, -0.1, -0.3, tolerance=1e-9)
    assert found.reward == pytest.approx(best, rel=1e-9)
    assert found.reward <= found.bound <= found.reward * (1 + 2e-9)
    with pytest.raises(InputError, match=r'^a reward needs a problem with objective "loss"'):
        best_reward(replace(problem, limits={}), 50.0, target)
    with pytest.raises(InputError, match=r"^a reward needs alpha and beta of at most 0"):
        best_reward(problem, 50.0, target, alpha=1.0)


def test_why_there_is_no_design() -> None:
    question = draw_question(5)
    free: dict[str, Any] = {"ties": (), "forbid": (), "objective": "latency"}
    loosest = solve(5, **free, limits={})
    least_loss = solve(5, **{**free, "objective": "loss"}, limits={}).loss
    least_ms = loosest.cycles * 1000 / loosest.clock_hz
    half = loosest.cycles // 2  # the limit lies half a cycle above and is shown in whole cycles
    found = solve(5, **free, limits={
        "latency_ms": Decimal(half * 2 + 1) * 500 / loosest.clock_hz, "loss": 10**6
    })  # fmt: skip
    assert found.certificate.status is Status.INFEASIBLE
    assert found.why == (
        f"infeasible: this limit cannot hold: latency_ms <= {half * 1000 / loosest.clock_hz:.6g} "
        f"(feasible from {least_ms:.6g})"
    )
    found = solve(5, **free, limits={"loss": least_loss - Decimal("0.01"), "size_kb": 10**6})
    assert found.why == (
        f"infeasible: this limit cannot hold: loss <= {float(least_loss) - 0.01:.6g} "
        f"(feasible from {float(least_loss):.6g})"
    )
    narrow = replace(question.options, kinds=(DenseKind(4, 4, lut=True),))
    problem = joint_problem(question.workload, "pynq-z2", space=narrow, formats="w8a8")
    assert solve_joint(problem).why == (
        "infeasible whatever the limits: no accelerator of pynq-z2 runs every layer in the "
        "formats offered (w8a8); offer narrower ones or deeper buffers"
    )


@pytest.mark.parametrize("seed", range(4))
def test_variants_against_every_network(seed: int) -> None:
    parts = [draw_question(50 + 3 * seed + i) for i in range(3)]
    empty = Workload("skip", ())
    names = [replace(q.workload, name=f"v{i}", vector_ops=()) for i, q in enumerate(parts)]
    formats = ("w8a8", "w4a4")
    rng = random.Random(seed)
    whole = with_variants("net", [[names[0]], [names[1], names[2]]])
    loss = {layer.name: {f: Decimal(rng.randint(0, 99)) for f in formats} for layer in whole.layers}
    limits: dict[str, Any] = {"loss": Decimal(60 * len(parts[0].workload.layers))}

    def best(blocks: Any) -> Any:
        problem = joint_problem(
            with_variants("net", blocks), "pynq-z2", formats=formats, space=parts[0].options,
            loss=loss, limits=limits,
        )  # fmt: skip
        return solve_joint(problem)

    for variants in ([names[1], names[2]], [names[1], names[2], empty]):
        chosen = best([[names[0]], variants])
        singles = [best([[names[0]], [variant]]).certificate.objective for variant in variants]
        reached = [value for value in singles if value is not None]
        assert chosen.certificate.objective == (min(reached) if reached else None)
        if reached:
            there = {layer.name.split(".")[0] for layer in chosen.layers}
            assert len(there - {"v0"}) <= 1


def test_variant_messages() -> None:
    question = next(q for q in map(draw_question, range(99)) if q.workload.vector_ops)
    work = question.workload
    with pytest.raises(InputError) as raised:
        with_variants("net", [[work, work]])
    assert str(raised.value) == (
        f"block 0 of 'net': variant {work.name!r} has operator 'v0'; a block with a choice holds "
        "layers only"
    )
    with pytest.raises(InputError) as raised:
        with_variants("net", [[]])
    assert str(raised.value) == "block 0 of 'net' has no variant"


class EarlyEnd(Deadline):
    """Time is up at the n-th look."""

    looks = 0

    @property
    def passed(self) -> bool:
        EarlyEnd.looks -= 1
        return EarlyEnd.looks < 0

    def remaining(self) -> float | None:
        return None


def test_ending_early_leaves_a_bound_below_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codesign.flow.joint.search._BATCHES", (1,))
    statuses = set()
    for seed in range(12):
        question = draw_question(seed)
        free: dict[str, Any] = {"ties": (), "forbid": (), "objective": "latency"}
        arguments = {**question.arguments, **free, "limits": {}, "loss_budget": Decimal("0.4")}
        problem = joint_problem(question.workload, "pynq-z2", space=question.options, **arguments)
        best = solve_joint(problem).certificate
        for looks in (1, 2):
            EarlyEnd.looks = looks
            proof = Search(problem, EarlyEnd(None), Exact()).run().certificate
            statuses.add(proof.status)
            if proof.objective is not None and best.objective is not None:
                assert proof.bound is not None
                assert proof.bound <= best.objective <= proof.objective
                assert proof.status is not Status.OPTIMAL or proof.gap == 0
    assert Status.FEASIBLE in statuses


def test_plain_data_holds_the_whole_design() -> None:
    question = draw_question(2)
    free: dict[str, Any] = {"ties": (), "forbid": (), "objective": "latency", "limits": {}}
    result = solve(2, **free)
    data = json.loads(json.dumps(result.to_data(), default=str))
    assert Accelerator.from_data(data["accelerator"]) == result.accelerator
    assert [layer["name"] for layer in data["layers"]] == [
        layer.name for layer in question.workload.layers
    ]
    vector = data["cycles_modelled"] - sum(
        item["cycles"] for item in (*data["layers"], *data["chains"])
    )
    assert (vector > 0) == bool(question.workload.vector_ops)
    certificate = data["certificate"]
    assert certificate["status"] == "optimal"
    assert certificate["objective"] == certificate["bound"] == str(result.cycles)
    assert (
        certificate["architectures_solved"] + certificate["architectures_pruned"]
        == (certificate["architectures_undominated"])
    )


def stream_question(seed: int) -> Question:
    question = draw_question(seed)
    question.arguments.update(
        objective="throughput", stream=True, limits={}, ties=(), forbid=(), fusion=True
    )
    return question


def test_a_stream_by_hand() -> None:
    """Depthwise 8 x 8 x 16 and pointwise 16 -> 16 on one accelerator: the interval is what the
    busier engine takes, and a chain that runs fused takes both."""
    size, one = (8, 8), (1, 1)
    dw = LayerShape("depthwise", 16, 16, 16, (3, 3), one, one, size, size)
    pw = LayerShape("dense", 16, 16, 1, one, one, one, size, size)
    work = Workload(
        "two", (Layer("dw", dw, "x"), Layer("pw", pw, "dw")), (Chain(None, 0, 1),)
    )  # fmt: skip
    space = SpaceOptions(
        inputs=(8,), outputs=(16,), pixels=(1,), kinds=(DenseKind(),), double=(False,), post=(8,),
        weight_depths=(1024,), activation_depths=(1024,), accumulator_depths=(1024,),
        depthwise_lanes=((16, 1),), depthwise=(True,), depthwise_activation_depths=(1024,),
    )  # fmt: skip
    arguments: dict[str, Any] = {"formats": "w8a8", "space": space}
    apart = joint_problem(work, "ultra96", stream=True, objective="throughput", fusion=False,
                          **arguments)  # fmt: skip
    result = solve_joint(apart, tolerance=0)
    first, second = (layer.cycles for layer in result.layers)
    # 64 pixels x 9 taps against 64 pixels x 2 input groups x 1, and the fixed times of each layer
    assert first > 64 * 9
    assert second > 64 * 2
    assert result.busy["busy_depthwise"] == first
    assert result.busy["busy_dense"] == second
    assert result.interval == max(first, second, result.busy["busy_memory"])
    assert result.cycles == first + second
    assert result.fps == result.clock_hz / result.interval
    fused = joint_problem(work, "ultra96", stream=True, objective="throughput", **arguments)
    chain = solve_joint(fused, tolerance=0)
    assert chain.interval <= result.interval
    if chain.chains:
        assert chain.busy["busy_dense"] == chain.busy["busy_depthwise"] == chain.chains[0].cycles
    alone = joint_problem(work, "ultra96", objective="throughput", **arguments)
    assert solve_joint(alone).interval == solve_joint(alone).cycles


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_is_never_slower_and_tolerance_is_kept(seed: int) -> None:
    question = stream_question(seed)
    problem = joint_problem(
        question.workload, "pynq-z2", space=question.options, **question.arguments
    )
    exact = solve_joint(problem, tolerance=0)
    assert exact.certificate.status is Status.OPTIMAL
    question.arguments.update(stream=False)
    alone = solve_joint(
        joint_problem(question.workload, "pynq-z2", space=question.options, **question.arguments)
    )
    assert exact.interval <= alone.interval == alone.cycles
    loose = solve_joint(replace(problem, store=PriceStore()), tolerance=0.2).certificate
    assert loose.objective is not None
    assert loose.bound is not None
    assert exact.certificate.objective is not None
    assert loose.bound <= exact.certificate.objective <= loose.objective
    assert loose.objective - loose.bound <= Decimal("0.2") * loose.objective
    assert (loose.status is Status.OPTIMAL) == (loose.gap == 0)
    # a rate that is reached can be asked for, a higher one cannot
    for cap, status in ((exact.interval, Status.OPTIMAL), (exact.interval - 1, Status.INFEASIBLE)):
        asked = replace(problem, limits={"interval": cap})
        assert solve_joint(asked, tolerance=0, explain=False).certificate.status is status


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_reward_is_an_objective(seed: int) -> None:
    question = draw_question(seed)
    question.arguments.update(objective="reward", limits={}, ties=(), forbid=(), stream=False)
    reward = Reward(50.0, 0.2, -0.1, -0.3)
    problem = joint_problem(
        question.workload, "pynq-z2", space=question.options, reward=reward, **question.arguments
    )
    result = solve_joint(problem)
    best = 0.0
    question.arguments.update(objective="loss", limits={"latency_ms": Decimal(10**6)})
    for values, runs in designs(question, "pynq-z2", problem.tables.by):
        share = values["latency"][runs].min() / problem.device.clock_hz * 1e3 / 0.2
        power = -0.1 if share <= 1 else -0.3
        best = max(best, (50 - values["loss"][0] / 100) * share**power)
    assert result.certificate.status is Status.OPTIMAL
    assert float(result.certificate.objective or 0) == pytest.approx(best, rel=1e-12)
    with pytest.raises(InputError, match=r'^objective "reward" and reward= belong together'):
        joint_problem(question.workload, "pynq-z2", formats="w8a8", objective="reward")


@pytest.mark.parametrize("seed", range(6))
def test_solves_start_from_earlier_ones(seed: int) -> None:
    """A walk over loss limits gives what cold solves give, and starts warm where it can."""
    question = draw_question(seed)
    question.arguments.update(objective="latency", limits={}, ties=(), forbid=())
    problem = joint_problem(
        question.workload, "pynq-z2", space=question.options, loss_budget=Decimal(0),
        **question.arguments,
    )  # fmt: skip
    start = problem.limits["loss"]
    warm = []
    for more in (0, 20, 60, 150, 60, 400):
        asked = replace(problem, limits={"loss": start + more})
        found = solve_joint(asked).certificate
        cold = solve_joint(replace(asked, store=PriceStore())).certificate
        assert (found.status, found.objective) == (cold.status, cold.objective)
        assert not cold.warm
        warm.append(found.warm)
    assert warm == [False, True, True, True, True, True]
    again = pickle.loads(pickle.dumps(problem))  # designs travel, tables do not
    assert not again.store.pairs
    assert solve_joint(replace(again, limits={"loss": start + 400})).certificate.warm
