"""`cclight models`: list the published checkpoints that load by name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cclight.commands.arguments import PlainParser
from cclight.commands.outputs import console

if TYPE_CHECKING:
    from rich.table import Table


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return PlainParser("cclight models", description="List the published checkpoints that load by name.")


def main(arguments: list[str]) -> None:
    """`cclight models`: list the published checkpoints."""
    parser().parse_args(arguments)
    console().print(models_table())


def models_table() -> Table:
    """The known checkpoints, for `cclight models`."""
    from rich.table import Table

    from cclight.priors.cards import CARDS
    from cclight.priors.checkpoints import cache_folder

    table = Table(box=None, pad_edge=False)
    for header in ("name", "prior", "paper", "GB", "licence", "sha256", "cached", "source"):
        # Names stand whole on any terminal, and nothing is cut: what does not fit goes on in the next line.
        table.add_column(header, no_wrap=header in ("name", "prior", "GB"), overflow="fold")
    for card in CARDS.values():
        cached = (cache_folder() / card.file).is_file()
        table.add_row(
            card.name,
            card.prior,
            card.paper or "-",
            f"{card.gigabytes:.1f}",
            card.licence,
            card.sha256[:12] if card.sha256 else "not published",
            "yes" if cached else "by hand" if card.by_hand else "no",
            card.source,
        )
    return table
