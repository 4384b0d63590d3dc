"""``python -m kakoi.cli`` is ``kakoi``."""

from kakoi.cli.main import main

main()
