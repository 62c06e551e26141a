"""Runs a program that the kernel ends when Snakemake is gone, however it went: python -m rules.tied PROGRAM ...

The request is made before the program starts and survives the exec, so that there is no moment, such as a long import,
in which a killed workflow would leave the program behind. Linux only; elsewhere the program just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the program named on the command line."""
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # gone before the request was made
            sys.exit("the workflow that started this has ended")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
