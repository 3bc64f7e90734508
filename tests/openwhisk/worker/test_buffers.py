"""What libraries hold in advance."""

from __future__ import annotations

import subprocess
import sys

RELEASED = """
import os
import numpy as np
from openwhisk.worker.buffers import release_buffers
from openwhisk.worker.limits import held_data

before = held_data()
libraries = release_buffers()
print(libraries, (before - held_data()) >> 20, flush=True)
a = np.random.default_rng(1).random((300, 300))
assert np.allclose(a @ a, np.einsum("ij,jk->ik", a, a, optimize=False))
assert np.allclose(np.linalg.inv(a) @ a, np.eye(300))
os._exit(0)
"""


def test_a_worker_holds_no_buffer_for_products_of_matrices() -> None:
    done = subprocess.run([sys.executable, "-c", RELEASED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    libraries, freed = map(int, done.stdout.split())
    # NumPy may have been built with another library.
    assert freed >= 16 * libraries


def test_without_such_a_library_nothing_happens() -> None:
    text = "from openwhisk.worker.buffers import release_buffers; print(release_buffers())"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
