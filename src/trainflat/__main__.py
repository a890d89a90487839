"""``python -m trainflat``: the command line, also for ``torchrun -m trainflat``."""

from trainflat.cli.main import main

main()
