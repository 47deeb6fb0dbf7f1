"""`python -m headwise` is the command line."""

from headwise.cli.app import main

main()
