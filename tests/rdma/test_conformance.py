"""The conformance suite of tests/libd over verbs: the same tests, with this folder's `kind`."""

from __future__ import annotations

from tests.libd.test_batches import *  # noqa: F403
from tests.libd.test_conformance import *  # noqa: F403
