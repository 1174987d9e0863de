"""``python -m flows`` is ``wavemill`` run by this interpreter."""

from flows.cli import main

main()
