"""``python -m studio.cli``."""

from studio.cli.start import main

main()
