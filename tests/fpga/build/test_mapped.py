# SPDX-License-Identifier: Apache-2.0
"""Hard blocks counted without synthesis: hand-written RTLIL, a buffer through yosys, the model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from amaranth.back import rtlil

from codesign.cost.resources import resources
from codesign.errors import InputError
from codesign.space.device import load_device
from codesign.targets.fpga.build.mapped import Parts, hard_blocks, parts_of
from codesign.targets.fpga.hw.buffers import ParamBuffer

ROOT = Path(__file__).resolve().parents[3]
DESIGN = r"""
module \pair
  cell \DSP48E2 \one
    connect \A 1'0
  end
  cell \DSP48E2 \two
  end
end
module \store
  memory width 36 size 512 \ram
  cell \pair \inside
    connect \x 1'0
  end
end
module \aside
  cell \DSP48E2 \unused
  end
end
module \top
  cell \pair \p
  end
  cell \store \s
  end
  cell \store \t
  end
end
"""


def test_instances_are_counted_through_the_hierarchy() -> None:
    found = parts_of(DESIGN, "top")
    assert found.dsp == 2 + 2 * 2  # of the pair alone and of both stores; nothing of what is aside
    assert list(found.memories.values()) == [2]
    assert "pair" not in next(iter(found.memories))
    with pytest.raises(InputError, match="the RTLIL holds no module bottom"):
        parts_of(DESIGN, "bottom")


def test_memories_are_mapped_by_yosys() -> None:
    parts = parts_of(rtlil.convert(ParamBuffer(), name="param", emit_src=False), "param")
    several = Parts(3, {text: 2 * n for text, n in parts.memories.items()})
    one, two = hard_blocks([parts, several], "xcup")
    assert (one.dsp, one.ramb18) == (0, 12)  # 432 x 512: twelve of 36 x 512
    assert (two.dsp, two.ramb18) == (3, 24)


def test_model_is_exact_on_the_held_out_accelerators() -> None:
    """Kept results of ``benchmarks/resources.py --mapped`` and ``--whole``; none was fitted to."""
    spec = importlib.util.spec_from_file_location("r", ROOT / "benchmarks" / "resources.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    data = json.loads(script.FILE.read_text())
    count = 0
    for family, rows in data["mapped"].items():
        device = load_device(script.PARTS[family])
        for seed, use in rows.items():
            model = resources(script.draw_held(family, int(seed)), device)
            assert (model.dsp, model.ramb18) == (use["dsp"], use["ramb18"]), (family, seed)
            count += 1
        for seed, use in data["whole"].get(family, {}).items():
            model = resources(script.draw(family, int(seed)), device)
            assert (model.dsp, model.ramb18) == (use["dsp"], use["ramb18"]), (family, seed)
            assert abs(model.lut / use["lut"] - 1) <= 0.10, (family, seed)
    assert count >= MAPPED


MAPPED = 4
