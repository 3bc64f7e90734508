"""scad."""
