"""Base-table columns that stay decoded in memory elements from one query to the next.

The session's side (`engine.resident.store`) decides what stays and has missing columns filled; a
worker's side decodes (`engine.resident.load`) and reads (`engine.resident.reader`) and loads no
planner. Nothing is imported here for that reason.
"""
