# SPDX-License-Identifier: Apache-2.0
"""Fine-tune MLPerf Tiny's ResNet8 on the JPEG version of CIFAR-10.

The published weights were trained on the original pixels; JPEG compression shifts the statistics
(75.48 % on the test files as they are). Writes ``resnet8.pt`` (state dict), ``calib.npz`` (array
``x``, training images without augmentation) and ``eval.npz`` (``x``, ``y``: all test images).

    python examples/finetune_resnet8.py --out build/resnet8 --epochs 16
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codesign import zoo
from codesign.data import cifar10, data_root

CALIB_IMAGES = 1000


def accuracy(module: nn.Module, x: NDArray[np.uint8], y: NDArray[np.int64]) -> float:
    """Top-1 accuracy in per cent; ``x`` (N, 3, 32, 32) raw pixels."""
    module.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(y), 500):
            batch = torch.from_numpy(x[start : start + 500]).float()
            found = module(batch.contiguous(memory_format=torch.channels_last)).argmax(1)
            right += int((found == torch.from_numpy(y[start : start + 500])).sum())
    return 100.0 * right / len(y)


def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Random shift by up to 4 pixels (reflected border) and horizontal flip, per image."""
    count, _, height, width = batch.shape
    padded = nn.functional.pad(batch, (4, 4, 4, 4), mode="reflect")
    row = torch.randint(0, 9, (count, 1), generator=generator) + torch.arange(height)
    column = torch.randint(0, 9, (count, 1), generator=generator) + torch.arange(width)
    flip = torch.rand(count, generator=generator) < 0.5
    column = torch.where(flip[:, None], column.flip(1), column)
    # NHWC gather: one read per pixel, and the result is channels_last as it lies
    pixels = padded.permute(0, 2, 3, 1).contiguous()
    image = torch.arange(count)[:, None, None]
    return pixels[image, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)


def finetune(
    out: Path,
    weights: Path | None = None,
    epochs: int = 16,
    minutes: float = 0.0,
    batch_size: int = 128,
    rate: float = 0.008,
    seed: int = 0,
    limit: int = 0,
) -> float:
    """Fine-tune, write the three files to ``out`` and return the test accuracy in per cent.

    Equal seeds give equal weights on one machine. With ``minutes`` the learning rate falls by the
    clock where the steps lag behind it by over 5 %, so that the run ends annealed in time; the
    result then depends on the machine's speed, and this is printed. ``limit``: use only the first
    so many images (smoke tests).
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    source = weights or data_root() / "mlperf_tiny" / "resnet8_cifar10.h5"
    module = zoo.load("resnet8", source).module.requires_grad_(True)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train_x, train_y = cifar10("train")
    test_x, test_y = cifar10("test")
    if limit:
        train_x, train_y, test_x, test_y = (a[:limit] for a in (train_x, train_y, test_x, test_y))
    print(f"before fine-tuning: {accuracy(module, test_x, test_y):.2f} % of {len(test_y)} images")

    images, labels = torch.from_numpy(train_x), torch.from_numpy(train_y)
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 2e-4}, {"params": others, "weight_decay": 0.0}],
        lr=rate,
        momentum=0.9,
        nesterov=True,
    )
    steps = math.ceil(len(labels) / batch_size)
    started = time.monotonic()
    by_clock = False
    for epoch in range(epochs):
        module.train()
        order = torch.randperm(len(labels), generator=generator)
        total = 0.0
        for step in range(steps):
            done = (epoch * steps + step) / (epochs * steps)
            if minutes:
                elapsed = (time.monotonic() - started) / (60.0 * minutes)
                if elapsed > done + 0.05:  # too slow for the limit: let the clock lead
                    by_clock = True
                    done = elapsed
            if done >= 1.0:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * done))
            chosen = order[step * batch_size : (step + 1) * batch_size]
            batch = augment(images[chosen], generator).float()
            loss = nn.functional.cross_entropy(module(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        reached = accuracy(module, test_x, test_y)
        print(
            f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, test {reached:.2f} %, "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        if minutes and time.monotonic() - started > 60.0 * minutes:
            break
    if by_clock:
        print(f"the clock ({minutes} minutes) shaped this run: another machine gives other weights")

    reached = accuracy(module, test_x, test_y)
    chosen = torch.randperm(len(labels), generator=generator)[:CALIB_IMAGES]
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in module.state_dict().items()}
    torch.save(state, out / "resnet8.pt.part")
    (out / "resnet8.pt.part").replace(out / "resnet8.pt")
    write_npz(out / "calib.npz", x=train_x[chosen.numpy()].astype(np.float32))
    write_npz(out / "eval.npz", x=test_x.astype(np.float32), y=test_y)
    print(f"float accuracy: {reached:.2f} % of {len(test_y)} test images -> {out / 'resnet8.pt'}")
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
    parser.add_argument("--weights", type=Path, help="start from this file (default: the .h5)")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=0.0, help="time limit (0: none)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.008, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, default=0, help="use only so many images")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    finetune(
        options.out,
        options.weights,
        options.epochs,
        options.minutes,
        options.batch_size,
        options.rate,
        options.seed,
        options.limit,
    )


if __name__ == "__main__":
    main()
