"""Moments of fields: which they are, how they are measured and differentiated."""
