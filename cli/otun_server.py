#!/usr/bin/env python3
"""`otun server`, straight from a checkout."""

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    from otun.cli import main

    sys.exit(main(["server", *sys.argv[1:]]))
