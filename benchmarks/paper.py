"""The paper's tables as commands: prints one `cclight predict` for every cell of paper_results.yaml.

python benchmarks/paper.py                     # all of them
python benchmarks/paper.py imagenet sr         # those that hold every word given
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "paper_results.yaml"
CONFIGS = HERE.parent / "configs" / "paper"


@dataclass(frozen=True)
class Cell:
    """One cell of the paper's tables.

    Attributes:
        dataset: the data set and its network, a file of configs/paper.
        task: the degradation, a file of configs/paper.
        sampler: the sampler, a file of configs/paper.
        nfe: network evaluations.
        published: the paper's LPIPS (AlexNet), KID × 1000 and FID.
    """

    dataset: str
    task: str
    sampler: str
    nfe: int
    published: tuple[float, float, float]

    @property
    def name(self) -> str:
        """What its run is called."""
        return f"{self.dataset}-{self.task}-{self.sampler}-{self.nfe}"

    def configs(self) -> list[Path]:
        """The configurations that make it, each on top of those before: the task may set what the sampler leaves open."""
        budget = [f"nfe_{self.nfe}"] if self.sampler not in ("dps", "ddrm") else []
        return [CONFIGS / f"{name}.yaml" for name in (self.dataset, self.sampler, *budget, self.task, "metrics")]

    def command(self) -> list[str]:
        """The command that runs it."""
        configs = [word for path in self.configs() for word in ("--config", str(path.relative_to(HERE.parent)))]
        return ["cclight", "predict", *configs, "--run.name", self.name]


def cells() -> list[Cell]:
    """Every cell that the paper fills."""
    return [
        Cell(dataset, task, sampler, nfe, tuple(numbers))
        for dataset, tasks in yaml.safe_load(RESULTS.read_text()).items()
        for task, samplers in tasks.items()
        for sampler, budgets in samplers.items()
        for nfe, numbers in budgets.items()
    ]


if __name__ == "__main__":
    for cell in cells():
        if set(sys.argv[1:]) <= {cell.dataset, cell.task, cell.sampler, str(cell.nfe)}:
            print(" ".join(cell.command()))
