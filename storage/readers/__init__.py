"""Bytes to arrays, one file a format family."""
