"""`python -m processor.cli`, where the command is not installed."""

from processor.cli import main

main()
