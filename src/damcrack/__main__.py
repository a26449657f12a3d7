"""`python -m damcrack`: the command, where its script is not on the path."""

from damcrack.cli.main import main

main()
