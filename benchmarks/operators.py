"""How fast are H, H⁺ and P = H⁺H?

python benchmarks/operators.py --quick           # 64×64
python benchmarks/operators.py --output FILE     # 256×256, and the numbers as JSON

Batch 4, three channels, float32, one thread. Medians of process times over interleaved repeats, in milliseconds, and each
implementation's time over ours. `dense` multiplies with the 1-D matrices of H and H⁺ (P = H⁺H); `svd` is written as the code of
DDRM is, U S Vᵀ with a permutation of the spectrum and P = H⁺H; `deepinv` is that library's A and A_dagger (P = A_dagger A; it
solves for A_dagger by iteration and has other borders). It comes with the extra `bench` and is left out where absent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cclight import BicubicDownsampling, GaussianBlur, Inpainting
from cclight.operators.separable import SMALLEST_SINGULAR_VALUE, SeparableOperator

BATCH = 4
Map = Callable[[Tensor], Tensor]


class Maps(NamedTuple):
    """H and H⁺, and P where it is not H⁺H."""

    forward: Map
    pinv: Map
    project: Map


def composed(forward: Map, pinv: Map) -> Maps:
    """P as two operators, one after the other."""
    return Maps(forward, pinv, lambda x: pinv(forward(x)))


def dense(operator: SeparableOperator, size: int) -> Maps:
    """The 1-D matrices of H and H⁺ on both sides."""
    u, s, v = _kept(operator, size)
    matrix, inverse = ((u * s) @ v.T).float(), ((v / s) @ u.T).float()
    return composed(
        lambda x: torch.einsum("ai,bcij,dj->bcad", matrix, x, matrix),
        lambda y: torch.einsum("ia,bcad,jd->bcij", inverse, y, inverse),
    )


def svd(operator: SeparableOperator, size: int) -> Maps:
    """As the code of DDRM: the spectrum in order of the singular values, channels last, by index."""
    u, s, _ = _kept(operator, size)
    whole = torch.linalg.svd(operator.matrix(size), full_matrices=True)[2].T.float().contiguous()
    rank, values = len(s), torch.outer(s, s).flatten()
    order = values.argsort(descending=True)
    measured = (order // rank) * size + order % rank
    rest = torch.ones(size * size, dtype=torch.bool).index_fill_(0, measured, False).nonzero().flatten()
    place = torch.cat([measured, rest])
    singulars = values[order].repeat_interleave(3).float()
    u, count = u.float(), len(singulars)

    def to_spectrum(x: Tensor) -> Tensor:
        z = whole.T @ x @ whole
        return z.flatten(2)[:, :, place].transpose(1, 2).reshape(len(x), -1)

    def from_spectrum(z: Tensor) -> Tensor:
        image = z.new_zeros(len(z), size * size, 3)
        image[:, place] = z.view(len(z), -1, 3)
        return whole @ image.transpose(1, 2).reshape(-1, 3, size, size) @ whole.T

    def forward(x: Tensor) -> Tensor:
        z = singulars * to_spectrum(x)[:, :count]
        y = z.new_zeros(len(x), rank * rank, 3)
        y[:, order] = z.view(len(x), -1, 3)
        return u @ y.transpose(1, 2).reshape(-1, 3, rank, rank) @ u.T

    def pinv(y: Tensor) -> Tensor:
        z = (u.T @ y @ u).flatten(2)[:, :, order].transpose(1, 2).reshape(len(y), -1) / singulars
        padded = z.new_zeros(len(z), 3 * size * size)
        padded[:, :count] = z
        return from_spectrum(padded)

    return composed(forward, pinv)


def _kept(operator: SeparableOperator, size: int) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(operator.matrix(size), full_matrices=False)
    rank = int((s >= SMALLEST_SINGULAR_VALUE).sum())
    return u[:, :rank], s[:rank], vh[:rank].T


def deepinv_maps(size: int) -> dict[str, Maps]:
    """The same tasks in deepinv; empty where it is not installed."""
    try:
        from deepinv import physics
        from deepinv.physics.functional import gaussian_blur
    except ImportError:
        print("deepinv is not installed and left out: pip install 'cclight[bench]'.")
        return {}
    shape = (3, size, size)
    kept = Inpainting().singular_values(shape).float()
    tasks = {
        "sr4": physics.Downsampling(shape, filter="bicubic", factor=4),
        "blur": physics.Blur(gaussian_blur(sigma=(3.0, 3.0)), padding="circular"),
        "inpainting": physics.Inpainting(shape, mask=kept.expand(shape)),
    }
    return {name: composed(task.A, task.A_dagger) for name, task in tasks.items()}


def measure(size: int, repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds by task, map and implementation."""
    sr, blur, mask = BicubicDownsampling(4), GaussianBlur(3.0, 61), Inpainting()
    x = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(0))
    kept = mask.singular_values(tuple(x.shape[1:])).float()
    tasks = {
        "sr4": {"ours": Maps(sr, sr.pinv, sr.project), "dense": dense(sr, size), "svd": svd(sr, size)},
        "blur": {"ours": Maps(blur, blur.pinv, blur.project), "dense": dense(blur, size), "svd": svd(blur, size)},
        "inpainting": {
            "ours": Maps(mask, mask.pinv, mask.project),
            "dense": composed(lambda x: kept * x, lambda y: kept * y),
        },
    }
    for name, maps in deepinv_maps(size).items():
        tasks[name]["deepinv"] = maps
    table: dict[str, dict[str, dict[str, float]]] = {}
    with torch.no_grad():
        for task, implementations in tasks.items():
            for field in Maps._fields:
                inputs = {name: maps.forward(x) if field == "pinv" else x for name, maps in implementations.items()}
                times: dict[str, list[float]] = {name: [] for name in implementations}
                for repeat in range(repeats + 1):
                    for name, maps in implementations.items():
                        began = time.process_time()
                        getattr(maps, field)(inputs[name])
                        if repeat:  # the first makes the tables
                            times[name].append(1e3 * (time.process_time() - began))
                table.setdefault(task, {})[field] = {name: statistics.median(taken) for name, taken in times.items()}
    return table


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="The speed of H, H⁺ and P beside other implementations.")
    parser.add_argument("--quick", action="store_true", help="64×64, few repeats")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table = measure(64 if options.quick else 256, 3 if options.quick else options.repeats)
    print("| task | map | ours, ms | dense | svd | deepinv |\n|---|---|---|---|---|---|")
    for task, maps in table.items():
        for field, times in maps.items():
            others = [
                f"{times[name]:.2f} ({times[name] / times['ours']:.1f}×)" if name in times else "-"
                for name in ("dense", "svd", "deepinv")
            ]
            print(f"| {task} | {field} | {times['ours']:.2f} | {' | '.join(others)} |", flush=True)
    if options.output:
        part = options.output.with_name(options.output.name + ".part")
        part.write_text(json.dumps(table, indent=1) + "\n")
        part.replace(options.output)


if __name__ == "__main__":
    main()
