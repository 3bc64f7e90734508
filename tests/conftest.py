"""For all rooms: what the tests' own processes inherit."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests of Ctrl-C
# would then wait for programs that cannot hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What decides whether a change lands must not depend on luck: there the examples are the same each
# time. Everywhere else, `make verify` included, hypothesis goes on looking for new ones.
# How long an example takes decides nothing.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("SCAD_CI") == "1" else "local")
