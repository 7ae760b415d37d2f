#!/usr/bin/env python3
"""`otun client`, straight from a checkout."""

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    from otun.cli import main

    sys.exit(main(["client", *sys.argv[1:]]))
