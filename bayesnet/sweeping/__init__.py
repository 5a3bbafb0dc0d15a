"""Grids of networks and tasks: what is measured at a point, by which executor, and where it is kept."""
