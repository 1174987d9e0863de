"""The commands of ``wavemill``, by what they are for."""
