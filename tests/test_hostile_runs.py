"""Runs under hard conditions: full and read-only disks, other processes, odd clocks, moved and damaged directories.

Each ends with one clear line and exit code 2, or goes on; what was computed is kept.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dormant.runner import PLAN, read_plan
from test_bad_input import one_line
from tiny_runs import Said, command, end, facts, small, start, tree

REFUSED = 3
"""How these runs end: a random model's numbers are refused."""

DAY = 24 * 3600

MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2"'
FULL_THEN_MORE = f"""
{MOUNT} || exit 99
place="$2"; copy="$3"; shift 3
"$@" 2> "$copy.err"; code=$?
mount -o remount,size=64m "$place" || exit 99
"$@" 2> "$copy.again"; again=$?
mkdir "$copy" && cp -r "$place/." "$copy"
echo "$code $again"
"""
"""Runs a command on a small disk, then again on a larger one, and keeps what it wrote."""

READ_ONLY = f"""
{MOUNT} || exit 99
cp -r "$3" "$2/run" && mount -o remount,ro "$2" || exit 99
place="$2"; shift 3
"$@"
"""


def private_mounts(script: str, *arguments: Any, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount, seen by nobody else; skips where the system does not allow it."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare: nothing can be mounted for a test")
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "DORMANT_CACHE": str(cache)},
        timeout=300,
    )
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"this system allows no mounts: {done.stderr.strip()}")
    return done


def dormant(*arguments: Any) -> list[str]:
    return [str(Path(sys.executable).with_name("dormant")), *map(str, arguments)]


def last_line(text: str) -> str:
    assert "Traceback" not in text, text
    return text.splitlines()[-1]


# --- disks


@pytest.mark.parametrize(
    ("full", "size", "workers"),
    [
        pytest.param("store", "600k", 1, id="store", marks=pytest.mark.slow),
        pytest.param("run", "2m", 1, id="run", marks=pytest.mark.slow),
        # Fills while torch writes a checkpoint: its error does not say why.
        pytest.param("store", "2m", 2, id="checkpoint in a worker", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_one_line_and_with_more_room_the_run_goes_on(
    base: Path, finished: Path, tmp_path: Path, full: str, size: str, workers: int
) -> None:
    disk, copy, elsewhere = tmp_path / "disk", tmp_path / "copy", tmp_path / "elsewhere"
    disk.mkdir()
    cache, out = (disk / "cache", elsewhere / "run") if full == "store" else (elsewhere, disk / "run")
    asked = dormant(*small(base), "--out", out, "--workers", workers)
    said = private_mounts(FULL_THEN_MORE, size, disk, copy, *asked, cache=cache)
    assert said.stdout.splitlines()[-1] == f"2 {REFUSED}", said
    line = last_line(Path(f"{copy}.err").read_text())
    assert line.startswith(f"dormant: {disk}")
    assert "can not be written" in line
    assert "the same command goes on" in line
    again = Path(f"{copy}.again").read_text()
    reused = int(again.split(" reused")[0].rsplit(" ", 1)[1])
    assert reused > 0
    assert facts(out if full == "store" else copy / "run") == facts(finished)


def test_a_read_only_disk_is_one_line(base: Path, finished: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    for arguments in (("report", disk / "run"), ("run", "tiny", "--out", disk / "new")):
        said = private_mounts(
            READ_ONLY, "64m", disk, finished, *dormant(*arguments), cache=tmp_path / "cache"
        )
        assert said.returncode == 2, said
        assert "Read-only file system" in one_line(Said(said.returncode, said.stdout, said.stderr))
    # Looking needs no writing.
    said = private_mounts(
        READ_ONLY, "64m", disk, finished, *dormant("verify", disk / "run"), cache=tmp_path / "cache"
    )
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("name", ["results.jsonl", "manifest.json"])
def test_a_disk_that_fills_at_one_write_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    finished: Path,
    own_store: Path,
    tmp_path: Path,
    name: str,
) -> None:
    write = Path.write_text

    def full(path: Path, *rest: Any, **named: Any) -> int:
        if path.name == f".{name}.writing":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        said = command(capsys, *small(base), "--out", tmp_path / "run", "--workers", 1)
    assert said.code == 2
    assert "No space left on device" in last_line(said.err)
    assert not list((tmp_path / "run").glob(name))
    said = command(capsys, *small(base), "--out", tmp_path / "run")
    assert said.code == REFUSED
    assert facts(tmp_path / "run") == facts(finished)


def test_a_store_that_can_not_be_linked_is_copied(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    finished: Path,
    own_store: Path,
    tmp_path: Path,
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    said = command(capsys, *small(base), "--out", tmp_path / "run", "--workers", 1)
    assert said.code == REFUSED, said.err
    assert facts(tmp_path / "run") == facts(finished)
    weights = next((tmp_path / "run").rglob("*.safetensors"))
    assert weights.stat().st_nlink == 1


# --- other processes


def test_two_runs_on_one_directory_at_once(
    capsys: pytest.CaptureFixture[str], base: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = start(tmp_path / "cache", *small(base), "--out", out, "--workers", 1)
    while not (out / PLAN).exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    said = command(capsys, *small(base), "--out", out)
    assert f"another process is running in {out}; wait for it or choose --out" in one_line(said)
    assert end(first).code == REFUSED
    assert facts(out) == facts(finished)


HOLDS = """
import sys, time
from filelock import FileLock
locks = [FileLock(path) for path in sys.argv[1:]]
for lock in locks: lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_locks_of_a_dead_process_stop_nobody(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, finished: Path, tmp_path: Path
) -> None:
    out, locks = tmp_path / "run", own_store / "locks"
    out.mkdir()
    locks.mkdir(parents=True)
    names = [locks / f"{call['directory']}.lock" for call in read_plan(finished)["calls"]]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, out / ".lock", *names], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert "another process is running" in one_line(command(capsys, *small(base), "--out", out))
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert all(name.exists() for name in names)
    said = command(capsys, *small(base), "--out", out)
    assert said.code == REFUSED, said.err
    assert "waiting" not in said.err
    assert facts(out) == facts(finished)


# --- what changed between two starts


@pytest.mark.slow
def test_another_spec_on_a_killed_run_is_refused_and_the_first_one_goes_on(
    capsys: pytest.CaptureFixture[str], base: Path, finished: Path, tmp_path: Path
) -> None:
    out, cache = tmp_path / "run", tmp_path / "cache"
    process = start(cache, *small(base), "--out", out, "--workers", 1)
    while not list((cache / "store").glob("implant-*/manifest.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    end(process)
    before = tree(out, cache)
    said = command(capsys, *small(base, implants__0__dose__lr=0.5), "--out", out)
    assert one_line(said).endswith("is another run (it differs in implants); choose another --out")
    assert tree(out, cache) == before
    said = end(start(cache, *small(base), "--out", out))
    assert said.code == REFUSED, said.err
    assert " 0 reused" not in said.err
    assert facts(out) == facts(finished)


@pytest.mark.parametrize("days", [365 * 70, -365 * 20], ids=["files from the future", "files from long ago"])
def test_times_of_files_decide_nothing(
    capsys: pytest.CaptureFixture[str], base: Path, finished: Path, own_store: Path, tmp_path: Path, days: int
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for path in (out, *out.rglob("*")):
        os.utime(path, (time.time() + days * DAY, time.time() + days * DAY))
    said = command(capsys, *small(base), "--out", out)
    assert said.code == REFUSED, said.err
    assert "0 stages to run, 22 reused" in said.err
    assert facts(out) == facts(finished)


def test_a_clock_that_runs_backwards_decides_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    finished: Path,
    own_store: Path,
    tmp_path: Path,
) -> None:
    started, clock = time.time(), time.monotonic
    zero = clock()
    monkeypatch.setattr(time, "time", lambda: started - 3600 * (clock() - zero))
    said = command(capsys, *small(base), "--out", tmp_path / "run", "--workers", 1)
    assert said.code == REFUSED, said.err
    assert facts(tmp_path / "run") == facts(finished)


def test_a_run_that_was_moved_is_whole_where_it_is_now(
    capsys: pytest.CaptureFixture[str], base: Path, finished: Path, own_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere" / "moved"
    shutil.copytree(finished, tmp_path / "run")
    out.parent.mkdir()
    shutil.move(tmp_path / "run", out)
    assert command(capsys, "verify", out).code == 0
    assert command(capsys, "report", out).code == REFUSED
    said = command(capsys, *small(base), "--out", out)
    assert "0 stages to run, 22 reused" in said.err
    assert facts(out) == facts(finished)


def test_half_of_the_artifacts_gone(
    capsys: pytest.CaptureFixture[str], base: Path, finished: Path, own_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    gone = sorted((out / "artifacts").iterdir())[::2]
    for path in gone:
        shutil.rmtree(path)
    said = command(capsys, "verify", out)
    assert said.code == 2
    assert said.out.count("not finished") == len(gone)
    assert "Traceback" not in said.err
    assert command(capsys, "report", out).code in (0, REFUSED)
    assert "partial" in (out / "card.md").read_text()
    said = command(capsys, *small(base), "--out", out)
    assert said.code == REFUSED, said.err
    assert facts(out) == facts(finished)


@pytest.mark.parametrize("name", ["artifacts", "completions", "figures"])
def test_a_whole_directory_gone(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    finished: Path,
    own_store: Path,
    tmp_path: Path,
    name: str,
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / name)
    said = command(capsys, "verify", out)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert said.out + said.err
    assert command(capsys, *small(base), "--out", out).code == REFUSED
    assert facts(out) == facts(finished)
    assert command(capsys, "verify", out).code == 0
