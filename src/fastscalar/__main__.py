"""`python -m fastscalar` is the command `fastscalar`."""

import sys

from fastscalar.cli import main

if __name__ == "__main__":
    sys.exit(main())
