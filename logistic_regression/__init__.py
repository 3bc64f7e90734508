"""Logistic regression on disaggregated memory: three steps around one memory element."""
