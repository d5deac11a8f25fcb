"""`python -m mgrl_cli`: the same as `mgrl`, for where the script is not on the path."""

import sys

from mgrl_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
