"""Applications: DAGs of compute and memory elements."""
