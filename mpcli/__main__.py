"""`python -m mpcli` is `mpcli`."""

from mpcli.cli import main

main()
