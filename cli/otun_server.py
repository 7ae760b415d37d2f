#!/usr/bin/env python3
"""`otun server`, straight from a checkout."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from otun.cli import main

    sys.exit(main(["server", *sys.argv[1:]]))
