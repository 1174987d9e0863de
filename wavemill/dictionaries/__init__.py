"""Sparse codes in dictionaries, and the classifiers built on them."""
