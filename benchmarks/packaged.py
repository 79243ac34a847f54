"""How good are five network calls? The packaged configurations on a folder of photographs, beside what needs no network at all.

    python benchmarks/packaged.py FOLDER [TASK ...]

For each task it runs `cclight predict` on the folder with the configuration's sampler and with the pseudoinverse (for
super-resolution also bicubic interpolation) in the sampler's place, prints LPIPS (squeeze) and PSNR, and writes
packaged.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn.functional import interpolate

from cclight.cli import main
from cclight.problem import Problem
from cclight.samplers.base import Sampler


@dataclass(frozen=True)
class Pseudoinverse(Sampler):
    """H⁺y and nothing else."""

    steps: int = 1

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        """The pseudoinverse."""
        return problem.pinv_y


@dataclass(frozen=True)
class Bicubic(Sampler):
    """The measurement enlarged by bicubic interpolation."""

    steps: int = 1

    def step(self, problem: Problem, n: int, state: Tensor) -> Tensor:
        """The enlarged measurement."""
        return interpolate(problem.y, tuple(problem.noise.shape[-2:]), mode="bicubic")


METHODS = {"cclight": [], "pseudoinverse": ["--model.sampler", "packaged.Pseudoinverse"]}
BICUBIC = {"bicubic": ["--model.sampler", "packaged.Bicubic"]}
TASKS = ("sr", "deblur", "inpaint", "colorize", "jpeg")


def run(folder: str, task: str, method: str, arguments: list[str]) -> dict[str, float]:
    """LPIPS and PSNR of one method on one task; an earlier run that was broken off goes on."""
    root = "runs/packaged"
    source = ["--data.source", "ImageFolder", "--data.source.init_args.path", folder]
    name = ["--run.root", root, "--run.name", f"{task}_{method}", "--run.resume", "true"]
    code = main(["predict", "--config", f"{task}.yaml", *arguments, *source, *name])
    if code:
        raise SystemExit(code)
    metrics = json.loads(Path(root, f"{task}_{method}", "metrics.json").read_text(encoding="utf-8"))["metrics"]
    return {key: metrics[key].get("mean") for key in ("lpips", "psnr", "nfe", "seconds")}


def table(folder: str, tasks: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """All methods on all tasks."""
    return {
        task: {
            method: run(folder, task, method, arguments)
            for method, arguments in (METHODS | (BICUBIC if task == "sr" else {})).items()
        }
        for task in tasks
    }


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    results = table(sys.argv[1], sys.argv[2:] or list(TASKS))
    Path("packaged.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print("| task | method | LPIPS | PSNR (dB) | NFE |\n|---|---|---|---|---|")
    for task, methods in results.items():
        for method, values in methods.items():
            print(f"| {task} | {method} | {values['lpips']:.3f} | {values['psnr']:.2f} | {values['nfe']:.0f} |")
