# SPDX-License-Identifier: Apache-2.0
"""Lower bounds are below the tables; rows kept on disk are read back; the best tiling is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.cost.best import map_chain, map_layer
from codesign.cost.bounds import Bounds
from codesign.cost.chain import ChainFormat
from codesign.cost.fill import Filler, chain_shape
from codesign.cost.tables import INFEASIBLE, By, unpack
from codesign.errors import InfeasibleError
from codesign.space.device import load_device
from codesign.space.generate import generate
from tests.space.conftest import FORMATS, draw_question


def chain_formats(chain: object, w: tuple[int, int], d: tuple[int, int]) -> ChainFormat:
    expand = getattr(chain, "expand", None)
    project = getattr(chain, "project", None)
    return ChainFormat(None if expand is None else w, d, None if project is None else w)


@pytest.mark.parametrize("seed", range(12))
def test_bounds_and_tilings(seed: int) -> None:
    question = draw_question(seed)
    device = load_device("pynq-z2")
    space = generate(device, question.options)
    by: By = "traffic" if seed % 3 == 0 else "cycles"
    filler = Filler(space, by=by)
    bounds = Bounds(space, by=by)
    places = [int(p) for p in np.random.default_rng(seed).integers(0, len(space), 3)]
    for layer in question.workload.layers:
        for bits in FORMATS.values():
            key, low = filler.layer(layer.shape, bits), bounds.layer(layer.shape, bits)[bounds.pair]
            runs = key < INFEASIBLE
            assert (low[runs] < INFEASIBLE).all()
            for real, least in zip(unpack(key[runs], by), unpack(low[runs], by)):
                assert (least <= real).all()
            for place in places:
                accelerator = space.accelerator(place)
                try:
                    found = map_layer(layer.shape, *bits, accelerator, device, filler.machine, by)
                except InfeasibleError:
                    assert key[place] == INFEASIBLE
                else:
                    mine = tuple(int(v) for v in unpack(key[place], by))
                    assert mine == (found.cost.cycles, found.cost.traffic)
    for chain in question.workload.chains:
        shape = chain_shape(question.workload, chain)
        for w, d in (((8, 8), (8, 8)), ((4, 4), (4, 8))):
            formats = chain_formats(shape, w, d)
            key, low = filler.chain(shape, formats), bounds.chain(shape, formats)[bounds.pair]
            runs = key < INFEASIBLE
            for real, least in zip(unpack(key[runs], by), unpack(low[runs], by)):
                assert (least <= real).all()
            for place in places:
                fused = map_chain(
                    shape, formats, space.accelerator(place), device, filler.machine, by=by
                )
                assert (fused is None) == (key[place] == INFEASIBLE)
                if fused is not None:
                    mine = tuple(int(v) for v in unpack(key[place], by))
                    assert mine == (fused[1].cycles, fused[1].traffic)


def test_rows_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = draw_question(1)
    space = generate(load_device("pynq-z2"), question.options)
    shape = question.workload.layers[-1].shape
    first = Filler(space, cache=tmp_path).layer(shape, (8, 8))
    files = sorted(tmp_path.iterdir())
    assert files
    monkeypatch.setattr("codesign.cost.fill.dense_table", None)
    monkeypatch.setattr("codesign.cost.fill.depthwise_table", None)
    assert np.array_equal(Filler(space, cache=tmp_path).layer(shape, (8, 8)), first)
    for file in files:  # what is damaged is filled again
        file.write_bytes(b"no array")
    with pytest.raises(TypeError):
        Filler(space, cache=tmp_path).layer(shape, (8, 8))
    smaller = space.take(np.arange(len(space) - 1))
    with pytest.raises(TypeError):
        Filler(smaller, cache=tmp_path).layer(shape, (8, 8))
