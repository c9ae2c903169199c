"""Start the command line; stopping it while modules are loaded is no error."""

import os
import signal
from types import FrameType

_STOPPED = 130


def main() -> None:
    """Load the command line and run it; Ctrl-C while it loads ends it with one line."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)  # an exception may get lost in what imports modules
    try:
        from compactds.cli.main import main as run
    finally:
        signal.signal(signal.SIGINT, before)
    run()


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what a handler is given
    """End the process at once: nothing is open yet."""
    os.write(2, b"stopped\n")
    os._exit(_STOPPED)
