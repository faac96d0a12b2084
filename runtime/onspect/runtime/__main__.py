"""``python -m onspect.runtime`` is the ``onspect`` command."""

from onspect.runtime.cli import main

main(prog_name="onspect")
