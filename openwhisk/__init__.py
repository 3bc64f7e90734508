"""openwhisk."""
