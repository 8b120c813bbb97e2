# SPDX-License-Identifier: Apache-2.0
"""The four registries: every entry loads, unknown and doubled names are told clearly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codesign.errors import CodesignError, InputError
from codesign.passes import PASSES, Pass
from codesign.quant.formats import FORMATS, LayerFormat, load_format
from codesign.registry import Registry
from codesign.solvers import registry as SOLVERS
from codesign.solvers.base import Solver
from codesign.targets import TARGETS
from codesign.targets.base import Target

ROOT = Path(__file__).resolve().parents[2]
BUILTIN = [
    pytest.param(registry, name, id=f"{registry.kind}-{name}")
    for registry in (PASSES, TARGETS, SOLVERS, FORMATS)
    for name in registry.builtin
]


@pytest.mark.parametrize(("registry", "name"), BUILTIN)
def test_entry_loads(registry: Registry, name: str) -> None:
    entry = registry.load(name)
    assert registry.owner(name) == "codesign"
    if registry is FORMATS:
        assert isinstance(entry, LayerFormat)
        assert str(entry) == name
        assert load_format(name) == entry
    else:
        kind = {id(PASSES): Pass, id(TARGETS): Target, id(SOLVERS): Solver}[id(registry)]
        assert issubclass(entry, kind)
        assert entry.name == name


def test_no_pass_is_forgotten() -> None:
    """Every subclass of Pass that a module of passes/ defines has a name in PASSES."""
    defined = set()
    for path in (ROOT / "passes").glob("*.py"):
        defined |= set(re.findall(r'^    name: ClassVar\[str\] = "(.+)"', path.read_text(), re.M))
        defined |= set(re.findall(r'^    name = "(.+)"', path.read_text(), re.M))
    assert defined == set(PASSES.builtin)


@pytest.mark.parametrize(
    ("registry", "wrong", "message"),
    [
        (PASSES, "fus", "unknown pass 'fus'; did you mean 'fuse'?"),
        (TARGETS, "hots", "unknown target 'hots'; did you mean 'host'?"),
        (SOLVERS, "cpsat", "unknown solver 'cpsat'; did you mean 'cp-sat'?"),
        (FORMATS, "w8a", "unknown number format 'w8a'; did you mean 'w8a8'?"),
    ],
)
def test_unknown_name(registry: Registry, wrong: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        registry.load(wrong)
    assert str(caught.value) == f"{message} (known: {', '.join(registry)})"


def test_doubled_name_names_both_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner in ("alpha", "beta"):
        info = tmp_path / f"{owner}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {owner}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[codesign.test_things]\nshine = m:Shine\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CodesignError) as caught:
        list(Registry("thing", "codesign.test_things", {}))
    message = "thing 'shine' is defined twice: by {} and by {}; rename or uninstall one of them"
    assert str(caught.value) in (message.format("alpha", "beta"), message.format("beta", "alpha"))
    with pytest.raises(CodesignError) as caught:
        list(Registry("thing", "codesign.test_things", {"shine": "codesign.errors:InputError"}))
    assert str(caught.value).startswith("thing 'shine' is defined twice: by codesign and by ")
