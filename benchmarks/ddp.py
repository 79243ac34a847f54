"""Does an evaluation give the same numbers on several processes? A folder of photographs, three samplers, one process and two.

    python benchmarks/ddp.py FOLDER [--size 256] [--processes 1 2] [--limit N] [--output ddp.json]

Each cell is one `cclight predict --config sr.yaml` with the embedded prior and five network calls, on the CPU with gloo where
there are several processes. The tables show each metric for every number of processes side by side, and how far the saved
pictures are apart. The runs lie in runs/ddp and go on where they were broken off.

The Fréchet and kernel distances are measured on SqueezeNet's features, pooled, because LPIPS needs that network in any case: no
FID or KID that compares with others, but the same sums and exchanges.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SAMPLERS = {
    "Conjugate": [],  # sr.yaml's own
    "PiGDM": ["--model.sampler", "PiGDM", "--model.sampler.init_args.steps", "5", "--model.sampler.init_args.t_start", "0.8"],
    "DDRM": ["--model.sampler", "DDRM", "--model.sampler.init_args.steps", "5"],
}
ROOT = Path("runs/ddp")


class SqueezeFeatures(nn.Module):
    """SqueezeNet's last features, averaged over the picture: uint8 (B, 3, H, W) -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

        self.network = squeezenet1_1(weights=SqueezeNet1_1_Weights.DEFAULT).features

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        mean, std = (
            torch.tensor(v, device=images.device).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        return self.network((images / 255 - mean) / std).mean(dim=(-2, -1))


def command(folder: str, sampler: str, processes: int, size: int, limit: int | None) -> list[str]:
    """The command line of one cell."""
    source = ["--data.source", "ImageFolder", "--data.source.init_args.path", folder, "--data.image_size", str(size)]
    some = [] if limit is None else ["--data.limit", str(limit)]
    trainer = ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes), "--trainer.enable_progress_bar", "false"]
    ddp = ["--trainer.strategy", "ddp"] if processes > 1 else []
    distances = ["--metrics.distances", "FeatureDistances", "--metrics.distances.network", "ddp.SqueezeFeatures"]
    run = ["--run.root", str(ROOT), "--run.name", f"{sampler}_{processes}", "--run.resume", "true"]
    # The command itself and not `main`: DDP starts its other processes from the command line.
    cclight = [sys.executable, str(Path(sys.executable).with_name("cclight"))]
    return [*cclight, "predict", "--config", "sr.yaml", *SAMPLERS[sampler], *source, *some, *trainer, *ddp, *distances, *run]


def run(*cell: Any) -> dict[str, Any]:
    """Run one cell, see `command`; returns its metrics by name."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    subprocess.run(command(*cell), check=True, env={**os.environ, "PYTHONPATH": path})
    return json.loads((ROOT / f"{cell[1]}_{cell[2]}" / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def farthest(sampler: str, one: int, other: int) -> tuple[int, float]:
    """The largest difference of two runs' restored pictures in grey levels, and the share of pixels that differ at all."""
    from cclight.runs.pictures import read_png

    folders = [ROOT / f"{sampler}_{processes}" / "restored" for processes in (one, other)]
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert names[0] == names[1], "the runs hold different images"
    differences = [(read_png(folders[0] / n).short() - read_png(folders[1] / n).short()).abs() for n in names[0]]
    together = torch.cat([difference.flatten() for difference in differences])
    return int(together.max()), float((together > 0).double().mean())


def main() -> None:
    """Run all cells, print the tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="photographs")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2], help="the first one is what others are compared with"
    )
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--limit", type=int, help="take the first so many photographs only")
    parser.add_argument("--output", default="ddp.json")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for sampler in options.samplers:
        runs = {n: run(options.folder, sampler, n, options.size, options.limit) for n in options.processes}
        first, *others = options.processes
        apart = {n: dict(zip(("levels", "share"), farthest(sampler, first, n), strict=True)) for n in others}
        results[sampler] = {"metrics": runs, "pictures_apart": apart}
        Path(options.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"| sampler | metric | {' | '.join(f'{n} process(es)' for n in options.processes)} |")
    print("|---|---|" + "---|" * len(options.processes))
    for sampler, result in results.items():
        for name, metric in result["metrics"][options.processes[0]].items():
            means = [runs[name].get("mean") for runs in result["metrics"].values()]
            cells = ["unavailable" if mean is None else f"{mean:.9g}" for mean in means]
            print(f"| {sampler} | {metric['title']} | {' | '.join(cells)} |")
        for n, apart in result["pictures_apart"].items():
            print(
                f"{sampler}: pictures of {n} processes differ by {apart['levels']} grey levels at most, in {apart['share']:.2g}"
            )


if __name__ == "__main__":
    main()
