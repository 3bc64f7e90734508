"""``python -m scad`` is the ``scad`` command."""

from __future__ import annotations

import sys

from scad.cli import main

if __name__ == "__main__":
    sys.exit(main())
