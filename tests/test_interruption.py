"""The end of what is interruptible; the commands' tests have the signals themselves."""

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, time
from cclight.interruption import Interruption

with Interruption(lambda: "", lambda number: None):
    child = os.fork()
    if child == 0:
        os.close(1), os.close(2)
        time.sleep(60)
print(child)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_outlives_the_work_does_not_keep_it_waiting():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    os.kill(int(ended.stdout), signal.SIGKILL)
