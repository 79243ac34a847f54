"""`cclight export`: write a trained prior in the packaged format."""

from __future__ import annotations


def export(arguments: list[str]) -> None:
    """`cclight export`: write a trained prior in the packaged format."""
    from jsonargparse import auto_cli

    from cclight.training import export

    print(auto_cli(export, args=arguments, as_positional=True, prog="cclight export"))
