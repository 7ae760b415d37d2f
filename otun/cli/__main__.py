"""`python -m otun.cli`."""

import sys

from otun.cli import main

sys.exit(main())
