"""Judging models of fields on samples that they were not fitted to."""
