"""Measurements side by side, each with a committed table in ``results/``."""
