"""Measurements beside peers, in the same run: `python -m bench SUITE`, or the same cases under
pytest-benchmark (`pytest bench`).
"""
