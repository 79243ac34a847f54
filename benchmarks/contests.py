"""What benchmarks/photographs.py has found: cells, who is best, how far the goal is, and the perception-distortion plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from cases import TITLES, Measured

PACKAGED = 5  # the budget of the packaged configurations
MOST = 100  # the budget up to which peers are to be beaten


@dataclass(frozen=True)
class Cell:
    """One contestant on one task at one budget.

    Attributes:
        task: a key of TASKS.
        noise_std: σ_y.
        sampler: its name.
        side: "ours", "peer", "packaged" or "baseline".
        nfe: the budget; 0 without a network.
        setting: the one that was chosen.
        tuning: the LPIPS of every setting that was tried on the photographs for tuning; None where it is not finite.
        measured: of the chosen one on the photographs that are reported on; None where none was finite or it was refused.
        refused: why the contestant cannot take the task, or nothing.
    """

    task: str
    noise_std: float
    sampler: str
    side: str
    nfe: int
    setting: str = ""
    tuning: dict[str, float | None] = field(default_factory=dict)
    measured: Measured | None = None
    refused: str = ""

    @property
    def row(self) -> tuple[str, float]:
        """Task and noise."""
        return self.task, self.noise_std

    @property
    def key(self) -> tuple[str, float, str, int]:
        """What no two cells have in common."""
        return self.task, self.noise_std, self.sampler, self.nfe

    @property
    def score(self) -> float:
        """The LPIPS of the chosen setting on the photographs for tuning; infinite without one."""
        found = self.tuning.get(self.setting)
        return math.inf if found is None else found

    @property
    def finite(self) -> bool:
        """Whether all photographs were restored within the range of images."""
        return self.measured is not None and self.measured.score is not None

    @property
    def lpips(self) -> float:
        """The mean on the photographs that are reported on."""
        return self.measured.mean("lpips") if self.measured else math.nan

    @property
    def psnr(self) -> float:
        """The same in dB."""
        return self.measured.mean("psnr") if self.measured else math.nan

    def written(self) -> dict[str, Any]:
        """The cell as JSON knows it."""
        return asdict(self)

    @staticmethod
    def read(written: dict[str, Any]) -> Cell:
        """The cell that was written so."""
        measured = written["measured"]
        return Cell(**{**written, "measured": None if measured is None else Measured(**measured)})


def rows(cells: Sequence[Cell]) -> list[tuple[str, float]]:
    """The tasks and noise levels, in the order of TITLES."""
    return sorted({cell.row for cell in cells}, key=lambda row: (list(TITLES).index(row[0]), row[1]))


def best(cells: Sequence[Cell], side: str, least: int, most: int) -> Cell | None:
    """The best of a side within budgets by the tuning draw: what is reported on has no say in it."""
    found = [cell for cell in cells if cell.side == side and least <= cell.nfe <= most and math.isfinite(cell.score)]
    return min(found, key=lambda cell: cell.score, default=None)


def table(cells: Sequence[Cell]) -> str:
    """LPIPS / PSNR in dB by task and noise as Markdown, the least LPIPS in bold.

    The columns are the packaged setting, the best of ours and of the peers' at its budget, and the same at any budget.
    """
    most = max(cell.nfe for cell in cells)
    columns = [("packaged", PACKAGED), ("ours", PACKAGED), ("peer", PACKAGED)]
    columns += [("ours", most), ("peer", most)] if most != PACKAGED else []
    titles = {"packaged": "packaged", "ours": "best of ours", "peer": "best peer"}
    heads = [f"{titles[side]}, {'5' if budget == PACKAGED else f'<= {most}'}" for side, budget in columns]
    lines = ["| task | σ_y | " + " | ".join(heads) + " | damped H⁺y |", "|---" * (len(heads) + 3) + "|"]
    for row in rows(cells):
        here = [cell for cell in cells if cell.row == row]
        shown = [best(here, side, PACKAGED if budget == PACKAGED else 1, budget) for side, budget in columns]
        least = min((cell.lpips for cell in shown if cell and cell.finite), default=math.nan)
        entries = []
        for cell in shown:
            if cell is None or not cell.finite:
                entries.append("diverged" if cell else "")
                continue
            value = f"{cell.lpips:.3f}"
            named = "" if cell.side == "packaged" else f" ({cell.sampler}{'' if cell.nfe == PACKAGED else f' {cell.nfe}'})"
            entries.append(f"{f'**{value}**' if cell.lpips == least else value} / {cell.psnr:.2f}{named}")
        guess = next((cell for cell in here if cell.sampler == "damped pseudoinverse"), None)
        entries.append(f"{guess.lpips:.3f} / {guess.psnr:.2f}" if guess and guess.finite else "")
        lines.append(f"| {TITLES[row[0]]} | {row[1]:g} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def goals(cells: Sequence[Cell]) -> str:
    """How many rows reach the goal: the packaged setting is ahead of every peer in LPIPS, and at no lower PSNR."""
    counts = dict.fromkeys(("ahead", "best", "every", "equal"), 0)
    winners = []
    measured = _contested(cells)
    for row in measured:
        here = [cell for cell in cells if cell.row == row]
        own = next(cell for cell in here if cell.side == "packaged")
        peers = [cell for cell in here if cell.side == "peer" and cell.finite and cell.nfe <= MOST]
        ahead = all(own.lpips < cell.lpips for cell in peers)
        rival = best(peers, "peer", 1, MOST)
        counts["ahead"] += ahead
        counts["best"] += ahead and (rival is None or own.psnr >= rival.psnr)
        counts["every"] += ahead and all(own.psnr >= cell.psnr for cell in peers)
        counts["equal"] += all(own.lpips < cell.lpips for cell in peers if cell.nfe == PACKAGED)
        wins = sorted((cell for cell in peers if cell.lpips <= own.lpips), key=lambda cell: cell.lpips)
        winners += [
            f"- {TITLES[row[0]]}, {row[1]:g}: {cell.sampler} at {cell.nfe}, {cell.lpips:.3f} / {cell.psnr:.2f} "
            f"against {own.lpips:.3f} / {own.psnr:.2f}"
            for cell in wins
        ]
    n = len(measured)
    lines = [
        f"The packaged setting at {PACKAGED} calls has less LPIPS than peers at <= {MOST} on {counts['ahead']} of {n} rows;",
        f"there its PSNR is no lower than the best peer's on {counts['best']}, than every peer's on {counts['every']}.",
        f"It has less LPIPS than all peers at equal cost on {counts['equal']}.",
        "",
    ]
    return "\n".join([*lines, *(["Peers that win:", *winners] if winners else ["No peer wins."])])


def leads(cells: Sequence[Cell]) -> str:
    """By how much the packaged setting is ahead of the peer that comes closest on what is reported on, as Markdown.

    The difference of LPIPS is paired, with the standard error of its mean over the photographs.
    """
    lines = ["| task | σ_y | the peer with the least LPIPS | LPIPS less | PSNR more (dB) |", "|---|---|---|---|---|"]
    for row in _contested(cells):
        here = [cell for cell in cells if cell.row == row and cell.finite]
        own = next(cell for cell in here if cell.side == "packaged")
        rival = min((cell for cell in here if cell.side == "peer"), key=lambda cell: cell.lpips)
        assert own.measured
        assert rival.measured
        gaps = [theirs - ours for theirs, ours in zip(rival.measured.lpips, own.measured.lpips, strict=True)]
        error = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else math.nan
        lines.append(
            f"| {TITLES[row[0]]} | {row[1]:g} | {rival.sampler} at {rival.nfe}: {rival.lpips:.3f} / {rival.psnr:.2f} | "
            f"{mean(gaps):.3f} ± {error:.3f} | {own.psnr - rival.psnr:.2f} |"
        )
    return "\n".join(lines)


def _contested(cells: Sequence[Cell]) -> list[tuple[str, float]]:
    """The rows where the packaged setting and a peer were measured."""
    sides: dict[tuple[str, float], set[str]] = {}
    for cell in cells:
        if cell.finite:
            sides.setdefault(cell.row, set()).add(cell.side)
    return [row for row in rows(cells) if {"packaged", "peer"} <= sides.get(row, set())]


def told(cells: Sequence[Cell]) -> str:
    """Who was refused what, and whose restorations were not finite or left the range."""
    lines: dict[str, list[str]] = {}
    for cell in cells:
        if not cell.finite:
            reason = cell.refused.partition(": ")[0].removeprefix(f"{cell.sampler} ")
            reason = reason or f"at {cell.nfe} diverged: not finite, or beyond [-10, 10]"
            lines.setdefault(f"{cell.sampler} {reason}", []).append(f"{TITLES[cell.task]} {cell.noise_std:g}")
    return "\n".join(f"- {what} ({', '.join(dict.fromkeys(where))})" for what, where in lines.items())


def seconds(cells: Sequence[Cell]) -> str:
    """What each contestant spent on a photograph at the packaged budget, the mean over tasks, as Markdown."""
    lines = ["| sampler | network evaluations | products | seconds |", "|---|---|---|---|"]
    here = [(cell.sampler, cell.measured) for cell in cells if cell.nfe == PACKAGED and cell.measured]
    for name in dict.fromkeys(name for name, _ in here):
        found = [measured for sampler, measured in here if sampler == name]
        means = [sum(getattr(one, key) for one in found) / len(found) for key in ("calls", "products", "seconds")]
        lines.append(f"| {name} | {means[0]:.3g} | {means[1]:.3g} | {means[2]:.2f} |")
    return "\n".join(lines)


def figure(cells: Sequence[Cell], path: Path) -> None:
    """LPIPS over PSNR, a panel for each task and noise level, a curve over the budgets for each contestant."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = rows(cells)
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    plot, axes = plt.subplots(lines, columns, figsize=(3.4 * columns, 2.9 * lines + 0.9), squeeze=False)
    names = {side: sorted({cell.sampler for cell in cells if cell.side == side}) for side in ("ours", "peer")}
    colors = plt.get_cmap("tab20")(range(20))
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, row in zip(axes.flat, shown, strict=False):
        here = [cell for cell in cells if cell.row == row and cell.finite]
        for side, style in (("ours", "o-"), ("peer", "s--")):
            for color, name in zip(colors, names[side], strict=False):
                points = [(c.psnr, c.lpips) for c in sorted(here, key=lambda c: c.nfe) if c.sampler == name and c.side == side]
                if points:
                    axis.plot(*zip(*points, strict=True), style, ms=4, lw=1, color=color, label=name)
        for side, marker, color in (("packaged", "*", "black"), ("baseline", "x", "grey")):
            points = [(cell.psnr, cell.lpips) for cell in here if cell.side == side]
            if points:
                size = 11 if side == "packaged" else 5
                axis.plot(*zip(*points, strict=True), marker, ms=size, ls="", color=color, label=side)
        top = max((cell.psnr for cell in here), default=0.0)
        low = min((cell.psnr for cell in here if cell.side != "baseline"), default=0.0)
        axis.set(title=f"{TITLES[row[0]]}, {row[1]:g}", xlim=(max(low, top - 6) - 0.3, top + 0.3))
        axis.set_ylim(0)
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("LPIPS", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("PSNR (dB)", fontsize=8)
    handles = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    plot.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=7)
    plot.set_layout_engine("constrained")
    path.parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(path, dpi=70)
    plt.close(plot)
