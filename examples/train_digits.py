# SPDX-License-Identifier: Apache-2.0
"""Train the digits network on scikit-learn's bundled 8x8 digits: real images, no download.

Writes ``digits.pt`` (state dict), ``calib.npz`` (array ``x``) and ``eval.npz`` (``x``, ``y``).

    python examples/train_digits.py --out build/digits
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codesign import zoo
from codesign.data import digits

BATCH = 32
PEAK_RATE = 3e-3


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image (N, 1, 8, 8) by up to one pixel in each direction."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    row = torch.randint(0, 3, (count, 1), generator=generator) + torch.arange(height)
    column = torch.randint(0, 3, (count, 1), generator=generator) + torch.arange(width)
    moved = padded[torch.arange(count)[:, None, None], 0, row[:, :, None], column[:, None, :]]
    return moved[:, None]


def accuracy(module: nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """Top-1 accuracy in per cent."""
    module.eval()
    with torch.no_grad():
        found = module(torch.from_numpy(x)).argmax(1).numpy()
    return 100.0 * float((found == y).mean())


def train(out: Path, seed: int = 0, epochs: int = 30) -> float:
    """Train from seeded weights, write the three files to ``out``, return test accuracy in %."""
    data = digits(seed=0)
    module = zoo.load("digits", seed=seed).module.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    optimizer = torch.optim.AdamW(module.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    steps = -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, epochs * steps)
    module.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads cost so small a network more than they gain
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(
                module(shift(images[chosen], generator)), labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.set_num_threads(threads)
    reached = accuracy(module, data.test_x, data.test_y)
    out.mkdir(parents=True, exist_ok=True)
    torch.save(module.state_dict(), out / "digits.pt.part")
    (out / "digits.pt.part").replace(out / "digits.pt")
    write_npz(out / "calib.npz", x=data.calib_x)
    write_npz(out / "eval.npz", x=data.test_x, y=data.test_y)
    return reached


def write_npz(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Write aside, then rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the three files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    reached = train(options.out, options.seed, options.epochs)
    print(f"digits: float accuracy {reached:.2f} % of 450 test images -> {options.out}")


if __name__ == "__main__":
    main()
