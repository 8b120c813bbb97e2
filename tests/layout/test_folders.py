# SPDX-License-Identifier: Apache-2.0
"""Folders are subpackages, modules have one name, and imports go one way only.

``codesign.{ir,frontend,quant,cost,space}`` stand below ``codesign.{passes,solvers,targets}``, which
stand below ``codesign.flow`` and ``codesign.cli``. See CONTRIBUTING.
"""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("passes", "solvers", "targets")
LINES = 600
HEAVY = (
    "h5py", "highspy", "joblib", "numpy", "onnx", "onnxruntime", "onnxscript", "ortools", "PIL",
    "pulp", "sklearn", "torch", "tvm", "xgboost",
)  # fmt: skip

ROOTS = ("codesign.errors", "codesign.registry", "codesign.__version__")
BELOW = (
    "codesign.data", "codesign.ir", "codesign.frontend", "codesign.quant", "codesign.cost",
    "codesign.space",
)  # fmt: skip
ALLOWED: dict[str, tuple[str, ...]] = {
    # package: what else of codesign it may import, beside itself and ROOTS
    "codesign.errors": (),
    "codesign.registry": (),
    "codesign.data": (),
    "codesign.zoo": ("codesign.data",),
    "codesign.ir": (),
    "codesign.frontend": (*BELOW, "codesign.zoo"),  # zoo:NAME is a way to name a network
    "codesign.quant": BELOW,
    "codesign.cost": BELOW,
    "codesign.space": BELOW,
    "codesign.solvers": (),
    "codesign.passes": BELOW,
    "codesign.targets": (*BELOW, "codesign.passes"),
    "codesign.tvm": (
        *BELOW, "codesign.passes", "codesign.targets", "codesign.flow.artifact",
        "codesign.flow.building",
    ),
    "codesign.torch_compile": (
        *BELOW, "codesign.passes", "codesign.targets", "codesign.flow.artifact",
        "codesign.flow.building",
    ),
}
"""What is not named here (the flow, the command line, the façade) may import everything."""


@dataclass(frozen=True)
class Import:
    """One import statement: the module it stands in, what it names, and its line."""

    module: str
    target: str
    line: int


def modules() -> dict[str, Path]:
    """Every module of the package by its only name; files are the real ones."""
    found = {}
    places = [("codesign", ROOT / "codesign")]
    places += [(f"codesign.{name}", ROOT / name) for name in FOLDERS]
    for package, folder in places:
        for path in sorted(folder.rglob("*.py")):
            if path.resolve() != path:  # reached through a link: the real folder is listed
                continue
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


def imports(module: str, source: str) -> list[Import]:
    """All imports of a module, those inside functions too. ``from a import b`` names ``a.b``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(module, alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found += [Import(module, f"{base}.{alias.name}", node.lineno) for alias in node.names]
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def offence(found: Import) -> str | None:
    """What is wrong with an import, or None."""
    where = f"{found.module}, line {found.line}: "
    if found.target.startswith("."):
        return where + f"relative import of {found.target}; write the whole name"
    top = found.target.split(".")[0]
    if top in FOLDERS:
        return where + f"imports {found.target}; its name is codesign.{found.target}"
    if top in ("tests", "examples", "benchmarks"):
        return where + f"the package must not import {top}"
    if top != "codesign":
        return None
    package = next((p for p in ALLOWED if within(found.module, p)), None)
    if package is None or any(
        within(found.target, allowed) for allowed in (package, *ALLOWED[package], *ROOTS)
    ):
        return None
    return where + f"{package} must not import {found.target}"


def test_direction_of_imports() -> None:
    files = modules()
    assert len(files) > 30
    found = [entry for name, path in files.items() for entry in imports(name, path.read_text())]
    assert [message for entry in found if (message := offence(entry))] == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        (
            "codesign.solvers.cbc",
            "import codesign.ir",
            "codesign.solvers must not import codesign.ir",
        ),
        (
            "codesign.targets.host",
            "def f():\n    from codesign import solvers",
            "codesign.targets must not import codesign.solvers",
        ),
        (
            "codesign.quant.ranges",
            "from codesign.passes import PASSES",
            "codesign.quant must not import codesign.passes.PASSES",
        ),
        ("codesign.ir.graph", "import codesign.flow", "codesign.ir must not import codesign.flow"),
        ("codesign.passes.fuse", "import passes.base", "its name is codesign.passes.base"),
        ("codesign.passes.fuse", "from .base import Pass", "relative import of .base.Pass"),
        (
            "codesign.passes.fuse",
            "from codesign.targets.host import HostTarget",
            "codesign.passes must not import codesign.targets.host.HostTarget",
        ),
        ("codesign.errors", "import codesign.ir", "codesign.errors must not import codesign.ir"),
        ("codesign.cli", "import tests.support", "the package must not import tests"),
    ],
)
def test_wrong_directions_are_found(module: str, source: str, message: str) -> None:
    (entry,) = imports(module, source)
    assert message in (offence(entry) or "")


def test_right_directions_pass() -> None:
    source = "import numpy\nfrom codesign.errors import InputError\nfrom codesign.ir import Graph\n"
    assert [offence(entry) for entry in imports("codesign.passes.fuse", source)] == [None] * 3
    assert [offence(entry) for entry in imports("codesign.flow.run", source)] == [None] * 3


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_is_a_subpackage(folder: str) -> None:
    link = ROOT / "codesign" / folder
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{folder}"
    file = importlib.import_module(f"codesign.{folder}").__file__
    assert file is not None
    assert Path(file).resolve() == ROOT / folder / "__init__.py"
    assert folder not in sys.modules


def test_every_package_has_an_init() -> None:
    """Without one a folder is a namespace package, and the wheel or a type checker may miss it."""
    folders = {path.parent for path in modules().values()}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []


def test_files_stay_small() -> None:
    everything = [*modules().values()]
    for folder in ("tests", "examples", "benchmarks"):
        everything += sorted((ROOT / folder).rglob("*.py"))
    lengths = {path: len(path.read_text().splitlines()) for path in everything}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > LINES} == {}


def test_every_file_names_its_licence() -> None:
    bare = []
    for path in [*modules().values(), *sorted((ROOT / "tests").rglob("*.py"))]:
        head = path.read_text().splitlines()[:2]
        if head and "# SPDX-License-Identifier: Apache-2.0" not in head:
            bare.append(str(path.relative_to(ROOT)))
    assert bare == []


def test_import_codesign_loads_nothing_heavy() -> None:
    """What makes the import slow is what it pulls in; a wall clock would only be noise."""
    script = "import codesign, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "codesign" in loaded
    assert loaded.isdisjoint(HEAVY), f"import codesign loads {sorted(loaded & set(HEAVY))}"
