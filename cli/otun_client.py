#!/usr/bin/env python3
"""`otun client`, straight from a checkout."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from otun.cli import main

    sys.exit(main(["client", *sys.argv[1:]]))
