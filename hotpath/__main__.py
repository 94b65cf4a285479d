"""`python -m hotpath COMMAND`: the command `hotpath` where no scripts are installed."""

import sys

from hotpath.cli import main

sys.exit(main())
