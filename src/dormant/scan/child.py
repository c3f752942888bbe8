"""Scanners that are programs of their own: the only place where a child process is started.

What is started is a scanner, found by name; the code that it reads is data in files and never run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dormant.scan.findings import ScannerFailed

KEPT = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR", "JAVA_HOME")
"""Of the environment only this reaches a scanner: no tokens, and no settings that could change what it finds."""


def program(name: str) -> str | None:
    """Where a scanner is: beside the running Python first (a virtual environment), then on the PATH."""
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return beside or shutil.which(name)


def call(command: Sequence[str], home: Path, seconds: float, **more: str) -> tuple[int, str]:
    """Run a scanner and return its exit code and standard output.

    Args:
        command: the program and its arguments.
        home: an empty directory; settings and logs that the scanner writes go there.
        seconds: how long it may take; then it is killed with everything that it started.
        more: environment variables.

    Raises:
        ScannerFailed: it can not be started, or took too long.
    """
    name = Path(command[0]).name
    folder = str(Path(command[0]).parent)
    environment = {key: os.environ[key] for key in KEPT if key in os.environ}
    environment["PATH"] = os.pathsep.join((folder, environment.get("PATH", os.defpath)))
    try:
        process = subprocess.Popen(
            command,
            cwd=home,
            env={**environment, "HOME": str(home), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ScannerFailed(f"{name} can not be started: {error.strerror}") from None
    try:
        out, err = process.communicate(timeout=seconds)
    except BaseException as error:
        # It may have started helpers, which would outlive it.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ScannerFailed(f"{name} took more than {seconds:g} s") from None
        raise
    if process.returncode < 0:
        raise ScannerFailed(f"{name} was killed by signal {-process.returncode}")
    if not out and err:
        return process.returncode, err.decode(errors="replace")
    return process.returncode, out.decode(errors="replace")


def last_line(text: str) -> str:
    """The last line that says something, cut to fit a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "it said nothing"
