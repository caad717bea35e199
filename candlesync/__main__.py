"""``python -m candlesync``: the command."""

from candlesync.cli import main

main()
