"""`python -m vestibule`."""

from vestibule.cli.main import main

main()
