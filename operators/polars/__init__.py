"""Polars as the kernel of a fragment: plans as text of Polars' lazy expressions."""
