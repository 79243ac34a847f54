"""The paper's tables as commands: prints one `cclight predict` for every cell of paper_results.yaml.

python benchmarks/paper.py                     # all of them
python benchmarks/paper.py imagenet sr         # those that hold every word given
"""

from __future__ import annotations

import sys

from cclight.commands.paper import Cell, cells
from cclight.configs import packaged_configs


def command(cell: Cell) -> list[str]:
    """The command that runs a cell."""
    above = packaged_configs().parent
    configs = [word for path in cell.configs() for word in ("--config", str(path.relative_to(above)))]
    return ["cclight", "predict", *configs, "--run.name", cell.name]


if __name__ == "__main__":
    for cell in cells():
        if set(sys.argv[1:]) <= {cell.dataset, cell.task, cell.sampler, str(cell.nfe)}:
            print(" ".join(command(cell)))
