"""Molecules: features of their atoms and of densities on grids, and regressions on them."""
