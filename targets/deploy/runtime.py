# SPDX-License-Identifier: Apache-2.0
"""TVM's runtime libraries for an architecture, of the version that is installed here.

For this computer they come from the installed packages, for another from the wheels of the same
versions, downloaded once by pip and kept in the user's cache folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

from codesign.data.root import cache_dir
from codesign.errors import InputError, ToolNotFoundError
from codesign.targets.deploy.arch import Arch

LIBRARIES = {
    "libtvm_runtime.so": ("apache-tvm", "tvm/lib/libtvm_runtime.so"),
    "libtvm_ffi.so": ("apache-tvm-ffi", "tvm_ffi/lib/libtvm_ffi.so"),
}
"""File name to its package and its path in the wheel."""
WHEELS_VARIABLE = "CODESIGN_WHEELS"
_MINUTES = 10


def runtime_libraries(arch: Arch) -> dict[str, Path]:
    """Paths of the libraries by file name.

    Raises ToolNotFoundError if they are neither here nor can be downloaded.
    """
    if arch.native:
        return {name: _installed(path) for name, (_, path) in LIBRARIES.items()}
    folder = _kept(arch)
    if not all((folder / name).is_file() for name in LIBRARIES):
        _download(arch, folder)
    return {name: folder / name for name in LIBRARIES}


def include_folder() -> Path:
    """The headers of the installed apache-tvm-ffi, which are the same for all architectures."""
    return _package("tvm_ffi") / "include"


def _package(module: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise ToolNotFoundError(
            f"no Python module {module!r}; get it with: pip install "
            "apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1"
        )
    return Path(found.origin).parent


def _installed(path: str) -> Path:
    module, _, rest = path.partition("/")
    found = _package(module) / rest
    if not found.is_file():
        raise ToolNotFoundError(f"{found} is missing from the installed package; install it again")
    return found


def _requirements() -> list[str]:
    names = sorted({package for package, _ in LIBRARIES.values()})
    return [f"{name}=={version(name)}" for name in names]


def _kept(arch: Arch) -> Path:
    versions = "-".join(version(name) for name in sorted({p for p, _ in LIBRARIES.values()}))
    return cache_dir() / "runtime" / f"{arch.name}-{versions}"


def _download(arch: Arch, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        given = os.environ.get(WHEELS_VARIABLE)
        wheels = Path(given) if given else Path(scratch)
        if given is None:
            _pip(arch, wheels)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        except OSError as error:
            raise InputError(
                f"cannot write TVM's runtime for {arch.name} to the cache folder "
                f"{folder.parent}: {error.strerror}; free it or set XDG_CACHE_HOME"
            ) from error
        try:
            for name, (package, path) in LIBRARIES.items():
                _extract(_wheel(wheels, package, arch), path, aside / name)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)
        except OSError as error:
            if not all((folder / name).is_file() for name in LIBRARIES):
                raise InputError(
                    f"cannot write TVM's runtime for {arch.name} to {folder}: {error.strerror}; "
                    "free it or set XDG_CACHE_HOME"
                ) from error  # else another process was faster
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _pip(arch: Arch, folder: Path) -> None:
    options = [
        "download", "--no-deps", "--quiet", "--disable-pip-version-check", "--platform",
        arch.wheel, "--only-binary=:all:", "--python-version", "3.11",
    ]  # fmt: skip
    command = [sys.executable, "-m", "pip", *options, "--dest", str(folder), *_requirements()]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * _MINUTES, check=False
        )
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode else None
    except subprocess.TimeoutExpired:
        problem = [f"no end after {_MINUTES} minutes"]
    if problem is not None:
        why = problem[0] if problem else "pip failed"
        raise ToolNotFoundError(
            f"TVM's runtime for {arch.name} could not be downloaded ({why}); get it where "
            f"there is a network with: python {' '.join(['-m', 'pip', *options])} --dest DIR "
            f"{' '.join(_requirements())}  and name that folder in {WHEELS_VARIABLE}"
        )


def _wheel(folder: Path, package: str, arch: Arch) -> Path:
    start = f"{package.replace('-', '_')}-{version(package)}-"
    found = sorted(folder.glob(f"{start}*{arch.name}.whl"))
    if not found:
        raise ToolNotFoundError(
            f"{folder} holds no wheel {start}*{arch.name}.whl; get it with: python -m pip "
            f"download --no-deps --platform {arch.wheel} --only-binary=:all: "
            f"{package}=={version(package)}, or unset {WHEELS_VARIABLE} to have it downloaded"
        )
    return found[0]


def _extract(wheel: Path, path: str, out: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            out.write_bytes(archive.read(path))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{wheel} is damaged or no TVM wheel: {error}; download it again"
                         ) from error
