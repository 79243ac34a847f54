"""`python -m cclight` is `cclight`."""

import sys

from cclight.cli import main

if __name__ == "__main__":
    sys.exit(main())
