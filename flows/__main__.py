"""``python -m flows`` is ``wavemill``, of this interpreter."""

from flows.cli import main

main()
