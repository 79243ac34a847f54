"""Nodes that share no file system: a run folder on each, of what its own ranks restore.

Rank 0 has opened its folder. Whoever finds there the words that its lock has written sees it, and joins. Where a rank sees
none, the first such rank opens the folder of that name under its own root, the others look there, and so on until every rank
has one. Each folder is a run of its own images, with means over these alone, that any command reads; the whole of them is made
by `cclight evaluate A B --into C`. They are one run all the same: what one of them holds, no rank restores again.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cclight.errors import RunError
from cclight.metrics.gather import gather
from cclight.runs.records import Record

if TYPE_CHECKING:
    from cclight.runs.folder import RunFolder


def enter(run: RunFolder, rank: int) -> None:
    """Enter the run's folder: a collective, which does nothing the second time.

    Args:
        run: opened by rank 0; takes rank 0's name, and learns which rank has opened the folder of each.
        rank: this process'.

    Raises:
        RunError: on every rank, when a node's folder cannot be opened; or as `RunFolder.join`.
    """
    run.rank = rank
    name, config, holder = gather((run.name, run.config, run.lock.holder()))[0]
    run.rename(name)
    opener = 0
    homes: dict[int, int] = {}
    while True:
        sees = gather(run.lock.holder() == holder or not config)
        homes = {**{other: opener for other, there in enumerate(sees) if there}, **homes}
        if len(homes) == len(sees):
            break
        opener = min(set(range(len(sees))) - homes.keys())
        holder, error = gather(_open(run, config) if rank == opener else ("", ""))[opener]
        if error:
            raise RunError(error)
    run.homes = homes
    run.join(rank)


def _open(run: RunFolder, config: str) -> tuple[str, str]:
    """Open this node's folder: its holder, or why it cannot be opened."""
    try:
        if not run.lock.held:
            run.open(config)
            warnings.warn(
                f"Rank {run.rank} sees no run folder of another rank: what it restores goes to {place_of(run)}, and the end of "
                f"the run says how to put the folders together.",
                stacklevel=2,
            )
    except (RunError, OSError) as error:
        return "", f"Rank {run.rank} on {socket.gethostname()}: {error}"
    return run.lock.holder(), ""


def place_of(run: RunFolder) -> str:
    """Where a run's folder lies, as HOST:/runs/sr."""
    return f"{socket.gethostname()}:{run.path.resolve()}"


def told(run: RunFolder, own: Mapping[int, Record], others: Mapping[str, Mapping[int, Record]]) -> str:
    """Which images a folder lacks, where they are, and how to put the folders together; nothing where it lacks none.

    Args:
        run: the folder.
        own: its images.
        others: those of the others, by the folder's place.
    """
    lacking = dict(sorted((index, record["name"]) for records in others.values() for index, record in records.items()))
    if not lacking:
        return ""
    first = ", ".join(f"{index} ({name})" for index, name in list(lacking.items())[:3])
    held = "; ".join(f"{len(records)} in {place}" for place, records in others.items() if records)
    copies = [f"FOLDER{number or ''}" for number in range(sum(map(bool, others.values())))]
    return (
        f"{run.path} lacks {len(lacking)} of the run's {len(own) + len(lacking)} images, {first}"
        f"{' and more' if len(lacking) > 3 else ''}, which lie on nodes that do not share it: {held}. Copy what lies there to "
        f"here, each to a FOLDER, and put all together: "
        f"cclight evaluate {run.path} {' '.join(copies)} --into {run.path}-whole"
    )
