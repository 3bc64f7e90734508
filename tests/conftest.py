"""For all rooms: what the tests' own processes inherit."""

from __future__ import annotations

import signal

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests of Ctrl-C
# would then wait for programs that cannot hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)
