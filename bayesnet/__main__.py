"""`python -m bayesnet` is the command line."""

import sys

from bayesnet.cli import main

sys.exit(main())
