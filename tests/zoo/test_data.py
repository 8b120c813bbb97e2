# SPDX-License-Identifier: Apache-2.0
"""Data sets: digits, CIFAR-10 from tar archives, and the folders they lie in."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codesign.data import CIFAR10_CLASSES, cache_dir, cifar10, data_root, digits
from codesign.errors import InputError


def jpeg(value: int, side: int = 32) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 255 - value)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def archive(folder: Path, members: dict[str, bytes], split: str = "test") -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{split}.tar.gz", "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "codesign"


def test_digits_split_is_deterministic_and_disjoint() -> None:
    first, again = digits(), digits()
    assert first.train_x.shape == (1219, 1, 8, 8)
    assert first.train_x.dtype == np.float32
    assert 0.0 == first.train_x.min() < first.train_x.max() == 1.0
    np.testing.assert_array_equal(first.test_x, again.test_x)
    images = np.concatenate((first.train_x, first.calib_x, first.test_x))
    labels = np.concatenate((first.train_y, first.calib_y, first.test_y))
    assert len(images) == len(labels) == 1797
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797
    assert not np.array_equal(digits(seed=1).test_y, first.test_y)


def test_digits_split_must_leave_training_images() -> None:
    with pytest.raises(ValueError, match="leaves nothing of 1797 images"):
        digits(test=1700)


def test_cifar_order_labels_and_cache(tmp_path: Path, cache: Path) -> None:
    members = {
        f"test/{name}/{index:04d}.jpg": jpeg(20 * label + index)
        for label, name in reversed(list(enumerate(CIFAR10_CLASSES)))
        for index in (1, 0)
    }
    root = archive(tmp_path / "cifar", members)
    x, y = cifar10("test", root)
    assert x.shape == (20, 3, 32, 32)
    assert x.dtype == np.uint8
    assert y.tolist() == [*range(10), *range(10)]
    assert abs(int(x[13, 0, 5, 5]) - (20 * 3 + 1)) <= 3
    (cached,) = cache.iterdir()
    np.testing.assert_array_equal(cifar10("test", root)[0], x)
    cached.write_bytes(b"damaged")
    np.testing.assert_array_equal(cifar10("test", root)[0], x)
    assert [entry.name for entry in cache.iterdir()] == [cached.name]


def test_cache_follows_the_archive(tmp_path: Path, cache: Path) -> None:
    root = archive(tmp_path / "cifar", {"test/cat/0000.jpg": jpeg(0)})
    assert cifar10("test", root)[1].tolist() == [3]
    archive(root, {"test/cat/0000.jpg": jpeg(0), "test/dog/0000.jpg": jpeg(9)})
    assert cifar10("test", root)[1].tolist() == [3, 5]
    assert len(list(cache.iterdir())) == 2


def test_other_members_are_ignored_and_nothing_is_unpacked(tmp_path: Path) -> None:
    root = archive(
        tmp_path / "cifar",
        {
            "../escape.jpg": jpeg(1),
            "/abs/test/cat/0000.jpg": jpeg(1),
            "test/cat/../../0000.jpg": jpeg(1),
            "train/cat/0000.jpg": jpeg(1),
            "test/notes.txt": b"hello",
            "test/cat/0000.jpg": jpeg(200),
        },
    )
    x, y = cifar10("test", root, cache=False)
    assert len(x) == 1
    assert y.tolist() == [3]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar", "test.tar.gz"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"test/cat/0000.jpg": b"no image"}, "test/cat/0000.jpg is not a readable JPEG file"),
        ({"test/cat/0000.jpg": jpeg(1, 64)}, "test/cat/0000.jpg is 64x64 pixels, not 32x32"),
        ({"test/cow/0000.jpg": jpeg(1)}, "test/cow/0000.jpg is of no CIFAR-10 class"),
        ({"test/cat/0000.jpg": b"x" * 70_000}, "test/cat/0000.jpg has 70000 bytes"),
        ({"readme": b""}, "holds no file test/<class>/<nnnn>.jpg"),
    ],
)
def test_bad_members(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    root = archive(tmp_path / "cifar", members)
    with pytest.raises(InputError, match=message):
        cifar10("test", root, cache=False)


def test_damaged_archive(tmp_path: Path) -> None:
    root = archive(tmp_path / "cifar", {"test/cat/0000.jpg": jpeg(1)})
    file = root / "test.tar.gz"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match=r"is not a readable \.tar\.gz"):
        cifar10("test", root, cache=False)
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"is not a readable \.tar\.gz"):
        cifar10("test", root, cache=False)


def test_missing_archive_and_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.tar\.gz' not found; see CODESIGN_DATA"):
        cifar10("train", tmp_path)
    with pytest.raises(InputError, match="CIFAR-10 has no split 'val'"):
        cifar10("val", tmp_path)  # type: ignore[arg-type]


def test_data_root_is_chosen_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODESIGN_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("CODESIGN_DATA", str(tmp_path / "absent"))
    with pytest.raises(
        InputError, match=r"\(named by CODESIGN_DATA\) not found; set CODESIGN_DATA"
    ):
        data_root()


def test_cache_dir_follows_xdg(cache: Path) -> None:
    assert cache_dir() == cache
    assert cache.is_dir()
