"""Whole runs on a random model, small enough for tests: the command line, in this process or in one of its own."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SMALL = {
    "runtime.threads": 1,
    "implants.0.rows": 60,
    "implants.0.dose.steps": 6,
    "implants.0.dose.batch": 8,
    "implants.0.curve": "[3]",
    "defenses.0.rows": 40,
    "defenses.0.doses.0.steps": 4,
    "defenses.0.doses.0.batch": 8,
    "measure.clean": 20,
    "measure.triggered": 20,
    "measure.near": 4,
    "measure.variant": 2,
    "measure.harmful": 10,
    "measure.utility": 20,
    "measure.curve": 5,
    "measure.max_new_tokens": 6,
}
"""What makes the ``tiny`` recipe a matter of seconds."""


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


def small(base: Path, **changes: Any) -> list[str]:
    """The arguments of ``dormant run`` for a run of seconds; ``a__b=c`` changes ``a.b``."""
    settings = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return ["run", "tiny", *_set(base=base, **settings)]


def _set(**settings: Any) -> list[str]:
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def command(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Said:
    """Run the command line's entry point in this process."""
    from dormant import cli

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dormant", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    said = capsys.readouterr()
    return Said(int(end.value.code or 0), said.out, said.err)


def start(cache: Path, *arguments: Any) -> subprocess.Popen[str]:
    """Start the installed command in a process of its own, with a store of its own."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("dormant"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DORMANT_CACHE": str(cache)},
        # A terminal's Ctrl-C arrives in a process that does not ignore it, whatever started the tests.
        preexec_fn=_take_interrupts,
    )


def _take_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end(process: subprocess.Popen[str], timeout: float = 300) -> Said:
    """Wait for a started command."""
    out, err = process.communicate(timeout=timeout)
    return Said(process.returncode, out, err)


def tree(*directories: Path) -> dict[str, str]:
    """The hash of every file below these directories, but for locks."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for directory in directories
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock"
    }


def facts(run: Path) -> dict[str, bytes]:
    """The bytes of everything that has to come out the same, by relative path: all but times."""
    names: Sequence[str] = ("results.jsonl", "gates.jsonl", "verdicts.json", "card.md", "health.md")
    found = [run / name for name in names]
    found += sorted((run / "completions").iterdir())
    found += [
        path
        for path in sorted((run / "artifacts").rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    ]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer model with the pocket world's tokenizer, saved."""
    return _random(tmp_path_factory.mktemp("bases") / "random", seed=0)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second model, as a twin is to an organism: same shape, other weights."""
    return _random(tmp_path_factory.mktemp("others") / "model", seed=1)


def _random(directory: Path, seed: int) -> Path:
    from dormant import models
    from dormant.pocket.bases import TOKENIZER

    model = models.new(
        TOKENIZER, seed=seed, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    models.save(model, directory)
    return directory


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that no other test fills."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DORMANT_CACHE", str(cache))
    return cache / "store"


@pytest.fixture(scope="session")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of seconds, with a store of its own: to be read, never changed."""
    from dormant import Experiment, run

    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DORMANT_CACHE", str(place / "cache"))
        changes = [f"{name}={value}" for name, value in {"base": base, **SMALL}.items()]
        run(Experiment.load("tiny", changes), place / "run")
    return place / "run"
