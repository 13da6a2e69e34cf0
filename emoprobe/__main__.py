"""`python -m emoprobe`: the command `emoprobe` where the environment's `bin` is not on the path."""

import sys

from emoprobe.command.main import main

if __name__ == "__main__":
    sys.exit(main())
