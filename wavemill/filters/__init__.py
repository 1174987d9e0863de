"""Wavelet filter banks."""
