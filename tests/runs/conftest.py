"""The runs that tests of the commands read are read here, too."""

from tests.commands.conftest import other_run, run, runs

__all__ = ["other_run", "run", "runs"]
