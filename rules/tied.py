"""Runs a program that the kernel ends when Snakemake is gone, however it went: python -m rules.tied PID PROGRAM ...

PID is the shell's $PPID, which is Snakemake: whoever is the parent by the time Python is up may be its heir already.
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
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the workflow that started this has ended")
    os.execvp(program[0], program)


if __name__ == "__main__":
    main()
