"""libd."""
