"""Mathematics of wavemill: transforms and models, on torch, numpy and scipy alone."""
