"""``python -m mainspring``."""

from mainspring.cli import main

main(prog_name="mainspring")
