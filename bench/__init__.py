"""Measurements beside peers, in the same run: `python -m bench SUITE …`, or some of the cases under
pytest-benchmark (`pytest bench`). See docs/benchmarks.md.
"""
