"""`python -m headwise` is the command line."""

from headwise.cli.guard import main

main()
