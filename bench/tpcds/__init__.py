"""All TPC-DS queries: Scad beside the engines that a user would pick instead, in one run."""
