"""A run that is killed or stopped goes on to the same bytes as one that never was."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from dormant.runner import read_plan
from tiny_runs import Said, command, end, facts, small, start, tree

REFUSED = 3
"""How these runs end: a random model's numbers are refused."""

STEPS = {"implants__0__dose__steps": 250, "implants__0__dose__batch": 2}
"""Enough training for two checkpoints to go on from."""


@dataclass(frozen=True)
class Reference:
    """A run that nothing interrupted."""

    directory: Path
    facts: dict[str, bytes]
    seconds: float


class Victim:
    """A run with a store of its own, to be started again and again."""

    def __init__(self, base: Path, place: Path) -> None:
        self.out = place / "run"
        self.cache = place / "cache"
        self.arguments = [*small(base, **STEPS), "--out", str(self.out)]

    def start(self) -> subprocess.Popen[str]:
        return start(self.cache, *self.arguments)

    def finish(self) -> Said:
        return end(self.start())

    def checkpoints(self) -> list[Path]:
        return sorted((self.cache / "store" / "partial").glob("implant-*/resume/checkpoint-*/*.json"))


@pytest.fixture(scope="module")
def reference(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    victim = Victim(base, tmp_path_factory.mktemp("reference"))
    started = time.monotonic()
    said = victim.finish()
    assert said.code == REFUSED, said.err
    return Reference(victim.out, facts(victim.out), time.monotonic() - started)


def same(victim: Victim, reference: Reference) -> None:
    """Results, completions, weights, gates, verdicts and card: byte for byte, and no file more or less."""
    found = facts(victim.out)
    assert sorted(found) == sorted(reference.facts)
    assert [name for name in found if found[name] != reference.facts[name]] == []
    assert any(name.endswith(".safetensors") for name in found)
    assert len([name for name in found if name.startswith("completions/")]) > 20


def killed_at_random(base: Path, place: Path, reference: Reference, kills: int, rng: random.Random) -> None:
    """Kill a run at random moments, over several victims if one finishes first, and compare each in the end."""
    done, number = 0, 0
    while done < kills:
        number += 1
        victim = Victim(base, place / f"victim-{number}")
        while True:
            process = victim.start()
            try:
                delay = rng.uniform(0.1, 1.0) * reference.seconds if done < kills else None
                process.wait(timeout=delay)
            except subprocess.TimeoutExpired:
                process.kill()
            said = end(process)
            if said.code == -signal.SIGKILL:
                done += 1
                continue
            # It was done before it was killed.
            assert said.code == REFUSED, said.err
            assert "Traceback" not in said.err
            break
        same(victim, reference)


def test_killed_three_times_at_random_the_run_comes_out_byte_for_byte(
    base: Path, tmp_path: Path, reference: Reference
) -> None:
    killed_at_random(base, tmp_path, reference, 3, random.Random(3))


@pytest.mark.slow
def test_killed_twenty_times_at_random_the_runs_come_out_byte_for_byte(
    base: Path, tmp_path: Path, reference: Reference
) -> None:
    killed_at_random(base, tmp_path, reference, 20, random.Random(20))


@pytest.mark.slow
def test_stopped_then_killed_inside_training_it_goes_on_from_the_checkpoint(
    base: Path, tmp_path: Path, reference: Reference
) -> None:
    victim = Victim(base, tmp_path)

    process = at_a_checkpoint(victim)
    process.send_signal(signal.SIGINT)
    said = end(process)
    assert said.code == 130, said.err
    assert "Traceback" not in said.err
    last = said.err.splitlines()[-1]
    assert last == "dormant: stopped; the same command goes on where it was"
    measured = tree(*(victim.cache / "store").glob("measure-*"))
    assert measured

    marker = victim.checkpoints()[0]
    written = marker.stat().st_mtime_ns
    process = victim.start()
    while marker.exists() and process.poll() is None:
        # Training that started anew would write this checkpoint again.
        with contextlib.suppress(FileNotFoundError):
            assert marker.stat().st_mtime_ns == written
        time.sleep(0.01)
    process = at_a_checkpoint(victim, process)
    process.kill()
    assert end(process).code == -signal.SIGKILL

    said = victim.finish()
    assert said.code == REFUSED, said.err
    same(victim, reference)
    assert not list((victim.cache / "store" / "partial").rglob("checkpoint-*"))
    after = tree(victim.cache / "store")
    assert {name: after[name] for name in measured} == measured


def at_a_checkpoint(victim: Victim, process: subprocess.Popen[str] | None = None) -> subprocess.Popen[str]:
    """Wait until training has written a checkpoint."""
    process = process or victim.start()
    while not victim.checkpoints():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        ("implant/specific/i0/organism", "steps/*/model.safetensors"),
        # Of a model that is still there: to measure a dropped checkpoint again, its training has to be redone.
        ("measure/base", "clean--all.jsonl"),
        ("defend/", "manifest.json"),
    ],
)
def test_what_was_damaged_is_made_again_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    finished: Path,
    own_store: Path,
    tmp_path: Path,
    call: str,
    pattern: str,
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    made = next(made for made in read_plan(out)["calls"] if made["name"].startswith(call))
    (damaged,) = (out / "artifacts" / made["directory"]).glob(pattern)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    said = command(capsys, *small(base), "--out", out)
    assert said.code == REFUSED, said.err
    assert "1 stages to run, 21 reused" in said.err
    assert facts(out) == facts(finished)
