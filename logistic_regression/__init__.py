"""logistic_regression."""
