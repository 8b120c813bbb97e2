# SPDX-License-Identifier: Apache-2.0
"""What starting up loads: nothing heavy, and no other machine's intrinsics.

Which modules are loaded is what makes a start slow; a clock would only be noise.
"""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("numpy", "scipy", "networkx", "torch", "tvm", "onnx", "ortools", "sklearn", "click")
FOREIGN = ("cuda", "rocm", "metal", "hexagon", "riscv_cpu")


def loaded(script: str) -> set[str]:
    """Modules that are loaded after ``script`` ran in a fresh interpreter."""
    script += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_codesign_is_light() -> None:
    modules = loaded("import codesign")
    assert modules.isdisjoint(HEAVY)
    assert len([name for name in modules if name.startswith("codesign")]) < 12


def test_first_build_loads_no_foreign_intrinsics() -> None:
    """TVM's own ``tensor_intrin`` package parses CUDA's intrinsics for more than a minute."""
    modules = loaded(
        "from codesign.frontend import load_network\n"
        "from codesign.targets.host import HostTarget\n"
        "HostTarget().runner(load_network('zoo:digits').graph)\n"
    )
    assert "tvm" in modules
    found = {name for name in modules if name.rpartition(".")[2] in FOREIGN}
    assert {name for name in found if name.startswith("tvm.s_tir.tensor_intrin")} == set()
