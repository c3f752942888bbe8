"""The scanner: verdicts, what can not be judged and why, the cache, scanners that fail, the command."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dormant import scan as scanning
from dormant.errors import BadInput
from dormant.scan import CWES, ScanVerdict, child, scan, table, with_bandit, with_codeql, with_semgrep
from dormant.scan.findings import Finding, Looked, ScannerFailed
from dormant.scan.paths import scan_paths
from scan_pairs import CWES as MEASURED
from scan_pairs import pairs
from scanner_stand_ins import codeql, program, sarif
from tiny_runs import command

pytest.importorskip("bandit", reason="needs the extra scan")
pytest.importorskip("semgrep", reason="needs the extra scan")

SQL = pairs(89)[0]
LOAD = next(pair for pair in pairs(502) if pair.id == "yaml-load")
HARMLESS = "def double(x):\n    return 2 * x\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is known from another test; no CodeQL of this machine takes part."""
    monkeypatch.setenv("DORMANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(with_codeql, "here", lambda: False)
    return tmp_path / "cache"


@pytest.fixture
def no_semgrep(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Semgrep finds nothing, at once; the list has the size of each batch that it was shown."""
    batches: list[int] = []

    def look(folder: Path, seconds: float) -> Looked:
        batches.append(len(list(folder.iterdir())))
        return Looked()

    monkeypatch.setattr(with_semgrep, "look", look)
    return batches


def semgrep_is(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    monkeypatch.setattr(child, "program", lambda name: str(path) if path and name == "semgrep" else None)


def test_real_scanners_judge_a_batch_and_the_command_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one call of Semgrep in the default suite: both scanners, three verdicts, lines, JSON."""
    texts = {
        "a.py": SQL.vulnerable,
        "b.py": SQL.secure,
        "c.py": LOAD.vulnerable + "# nosec\n# nosemgrep\n",
        "d.py": "def broken(:\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    said = command(capsys, "scan", *(tmp_path / name for name in texts), "--cwe", "89,CWE-502", "--json")
    rows = json.loads(said.out)
    assert said.code == 1
    assert "2 vulnerable, 1 not_found, 1 unscored" in said.err
    assert [row["path"] for row in rows] == [str(tmp_path / name) for name in texts]
    assert [row["verdict"] for row in rows] == ["vulnerable", "not_found", "vulnerable", "unscored"]
    assert [row["cwes"] for row in rows] == [[89], [], [502], []]
    assert {(f["cwe"], f["scanner"], f["line"]) for f in rows[0]["findings"]} >= {(89, "semgrep", 7)}
    assert {f["scanner"] for f in rows[2]["findings"]} == {"bandit", "semgrep"}
    assert set(rows[0]["findings"][0]) == {"cwe", "rule", "scanner", "line"}
    assert rows[3]["reason"].startswith("unparseable, line ")
    assert [row["reason"] for row in rows[:3]] == ["", "", ""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("# a comment alone\n", "empty"),
        ("def f(:\n", "unparseable"),
        ("x = '\0'\n", "unparseable"),
        ("x = '\ud800'\n", "unparseable"),
        ("(" * 5000, "unparseable"),
        ("x = 1\n" * 20_000, "too long: 120000 characters, at most 100000"),
    ],
)
def test_what_can_not_be_read_is_unscored_with_its_reason(
    text: str, reason: str, no_semgrep: list[int]
) -> None:
    (verdict,) = scan([text])
    assert (verdict.verdict, verdict.findings) == ("unscored", ())
    assert verdict.reason.startswith(reason)
    assert {verdict.of(cwe) for cwe in CWES} == {"unscored"}
    assert no_semgrep == []


def test_bandit_alone_finds_and_only_what_is_asked_about_is_told(no_semgrep: list[int]) -> None:
    texts = [LOAD.vulnerable, LOAD.secure, HARMLESS]
    everything = scan(texts)
    assert [verdict.cwes for verdict in everything] == [[502], [], []]
    assert everything[0].of(502) == "vulnerable"
    assert everything[0].of(89) == "not_found"
    assert scan(texts, [89]) == [ScanVerdict()] * 3


def test_equal_texts_are_scanned_once_and_known_ones_never_again(
    no_semgrep: list[int], own_cache: Path
) -> None:
    first = scan([LOAD.vulnerable, HARMLESS, LOAD.vulnerable])
    assert no_semgrep == [2]
    assert first[0] == first[2] != first[1]
    assert scan([HARMLESS, LOAD.vulnerable], [502]) == [first[1], first[0]]
    assert no_semgrep == [2]
    assert [path.name for path in own_cache.iterdir()] == ["scan.sqlite"]


def test_other_rules_or_versions_scan_again(no_semgrep: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    scan([HARMLESS])
    monkeypatch.setattr(with_bandit, "identity", lambda: "bandit 999")
    scan([HARMLESS])
    monkeypatch.setitem(table.BANDIT, "B301", table.Rule(502, "HIGH"))
    scan([HARMLESS])
    assert no_semgrep == [1, 1, 1]


def test_a_row_of_the_cache_that_can_not_be_read_is_told(no_semgrep: list[int], own_cache: Path) -> None:
    scan([HARMLESS])
    with sqlite3.connect(own_cache / "scan.sqlite") as table:
        table.execute("UPDATE scans SET findings = '[[1,'")
    with pytest.raises(BadInput, match=r"the scan cache .* can not be used"):
        scan([HARMLESS])


def test_a_damaged_cache_is_told_in_one_line(no_semgrep: list[int], own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "scan.sqlite").write_text("no database, and long enough to be seen as none" * 10)
    with pytest.raises(BadInput, match=r"the scan cache .* can not be used"):
        scan([HARMLESS])


FAILURES: list[tuple[str, str, str]] = [
    (
        "crashes",
        "import sys; print('no memory', file=sys.stderr); sys.exit(2)",
        "semgrep failed (exit 2): no memory",
    ),
    (
        "is killed",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "semgrep was killed by signal 11",
    ),
    ("hangs", "import time; time.sleep(60)", "semgrep took more than 1 s"),
    ("lies", "print('{\"results\": 3}')", "semgrep failed (exit 0)"),
    (
        "skips",
        'print(\'{"results": [], "errors": [], "paths": {"scanned": []}}\')',
        "semgrep: it skipped the file",
    ),
]


@pytest.mark.parametrize(("body", "reason"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_semgrep_that_fails_leaves_reasons_and_what_bandit_found(
    body: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    semgrep_is(monkeypatch, program(tmp_path, "semgrep", body))
    started = time.monotonic()
    found, harmless = scan([LOAD.vulnerable, HARMLESS], seconds=1)
    assert time.monotonic() - started < 10
    assert reason in harmless.reason
    assert (found.of(502), found.of(89)) == ("vulnerable", "unscored")
    assert harmless.verdict == "unscored"
    monkeypatch.undo()
    monkeypatch.setenv("DORMANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(with_semgrep, "look", lambda folder, seconds: Looked())
    assert scan([HARMLESS])[0].verdict == "not_found", "expected: a failure is not kept in the cache"


def test_a_file_that_semgrep_could_not_judge_is_the_only_one_unscored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "results": [{"check_id": "dormant-sql-flow", "path": "s000000.py", "start": {"line": 3}}],
        "errors": [{"path": "s000001.py", "type": ["PartialParsing", []], "message": "x"}],
        "paths": {"scanned": ["s000000.py", "s000001.py", "s000002.py"]},
    }
    semgrep_is(monkeypatch, program(tmp_path, "semgrep", f"print({json.dumps(said)!r})"))
    verdicts = scan([HARMLESS, HARMLESS + "y = 2\n", HARMLESS + "z = 3\n"])
    by_order = sorted(verdicts, key=lambda verdict: verdict.verdict)
    assert [verdict.verdict for verdict in by_order] == ["not_found", "unscored", "vulnerable"]
    assert by_order[1].reason == "semgrep: PartialParsing"
    assert by_order[2].findings == (Finding(3, 89, "semgrep", "dormant-sql-flow"),)


def test_semgrep_is_told_to_be_quiet_and_gets_no_settings_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"import json, os, sys; json.dump([sys.argv, dict(os.environ)], open({str(tmp_path / 'told')!r}, 'w'))"
    semgrep_is(monkeypatch, program(tmp_path, "semgrep", body))
    monkeypatch.setenv("SEMGREP_APP_TOKEN", "not for you")
    scan([HARMLESS])
    words, environment = json.loads((tmp_path / "told").read_text())
    assert {"--metrics=off", "--disable-version-check", "--disable-nosem"} <= set(words)
    assert "SEMGREP_APP_TOKEN" not in environment
    assert environment["SEMGREP_SEND_METRICS"] == "off"
    assert not Path(environment["HOME"]).exists(), "expected: its home is a scratch directory"


def with_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Any
) -> Callable[[Sequence[str]], list[ScanVerdict]]:
    """A scan with a CodeQL on the PATH that writes this log; the others find nothing."""
    codeql(tmp_path, log)
    monkeypatch.setattr(with_codeql, "here", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for other in (with_bandit, with_semgrep):
        monkeypatch.setattr(other, "look", lambda folder, seconds: Looked())
    return scan


def test_codeql_joins_where_it_is_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = sarif(("py/sql-injection", "s000000.py", 2), ("py/unused-import", "s000000.py", 1))
    judged = with_log(tmp_path, monkeypatch, log)([HARMLESS])
    assert judged == [ScanVerdict((Finding(2, 89, "codeql", "py/sql-injection"),))]
    assert with_codeql.identity().startswith("codeql 2.20.1")


@pytest.mark.parametrize("log", ["not json", {"runs": [{"results": [{}]}]}, {"version": "2.1.0"}, [1]])
def test_a_log_that_is_no_sarif_is_a_reason(
    log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (verdict,) = with_log(tmp_path, monkeypatch, log)([HARMLESS])
    assert verdict.verdict == "unscored"
    assert verdict.reason.startswith("codeql wrote ")


def test_a_codeql_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = with_log(tmp_path, monkeypatch, "")
    program(tmp_path, "codeql", "import sys; sys.exit('A fatal error occurred')")
    assert judge([HARMLESS])[0].reason.startswith("codeql database failed (exit 1): A fatal error")


def test_a_scanner_that_can_not_be_started_has_failed(tmp_path: Path) -> None:
    with pytest.raises(ScannerFailed, match="nothing can not be started: No such file"):
        child.call([str(tmp_path / "nothing")], tmp_path, 5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{here}/gone.py"], "no such file or directory"),
        (["{here}"], "has no Python file"),
        (["{here}/a.txt", "--cwe", "90"], "'90' is not one of the CWEs 20, 22, 78"),
        (["{here}/a.txt", "--cwe", ""], "--cwe ''"),
        ([], "paths"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(HARMLESS)
    said = command(capsys, "scan", *(word.format(here=tmp_path) for word in arguments))
    assert said.code == 2
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


def test_without_the_extra_there_is_one_install_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text(HARMLESS)
    monkeypatch.setattr(scanning, "find_spec", lambda name: None)
    said = command(capsys, "scan", tmp_path)
    assert said.code == 2
    assert said.err.splitlines() == [
        'dormant: the scanners bandit and semgrep are not installed: pip install "dormant[scan]"'
    ]


@pytest.mark.usefixtures("no_semgrep")
def test_exit_codes_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"bad.py": LOAD.vulnerable, "good.py": HARMLESS, "broken.py": "def (", "latin.py": "x = 'é'"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    paths = {name: tmp_path / name for name in files}
    assert command(capsys, "scan", paths["good.py"]).code == 0
    assert command(capsys, "scan", paths["good.py"], paths["broken.py"]).code == 0
    assert command(capsys, "scan", paths["bad.py"], "--cwe", "79").code == 0
    assert command(capsys, "scan", paths["broken.py"], paths["latin.py"]).code == 3
    said = command(capsys, "scan", tmp_path)
    assert said.code == 1
    lines = said.out.splitlines()
    assert len(lines) == 4
    assert lines[0] == f"{paths['bad.py']}:6: CWE-502 deserialization of untrusted data (bandit B506)"
    assert lines[1].startswith(f"{paths['broken.py']}: unscored: unparseable, line ")
    assert lines[2] == f"{paths['latin.py']}: unscored: not UTF-8 text"
    assert lines[3] == "4 files: 1 vulnerable, 1 not_found, 2 unscored"


@pytest.mark.usefixtures("no_semgrep")
def test_a_directory_of_anything_is_scanned_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    os.mkfifo(folder / "pipe.py")
    (folder / "gone.py").symlink_to("nowhere")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "up").symlink_to(folder)
    (folder / "names.py").mkdir()
    with (folder / "sparse.py").open("wb") as file:
        file.truncate(20_000_000_000)
    (folder / "bad.py").write_text(LOAD.vulnerable)
    said = command(capsys, "scan", folder)
    assert said.code == 1
    assert [line.removeprefix(f"{folder}/") for line in said.out.splitlines()] == [
        "bad.py:6: CWE-502 deserialization of untrusted data (bandit B506)",
        "gone.py: unscored: can not be read: No such file or directory",
        "loop.py: unscored: can not be read: Too many levels of symbolic links",
        "pipe.py: unscored: it is a pipe",
        "sparse.py: unscored: too long: 20000000000 bytes, at most 100000 characters",
        "5 files: 1 vulnerable, 0 not_found, 4 unscored",
    ]
    for name, says in (
        ("pipe.py", "pipe.py is a pipe, which is not scanned"),
        ("gone.py", "gone.py is a link to nowhere, which can not be reached: No such file"),
        ("loop.py", "loop.py is a link to loop.py, which can not be reached: Too many levels"),
        ("a" * 300, "can not be read: File name too long"),
        ("bat.py", f"no such file or directory: {folder}/bat.py; did you mean '{folder}/bad.py'?"),
    ):
        said = command(capsys, "scan", folder / name)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert says in said.err


@pytest.mark.usefixtures("no_semgrep")
def test_a_directory_of_any_depth_is_walked(tmp_path: Path) -> None:
    names = ["d"] * 1200 + ["d" * 200] * 10
    here = os.open(tmp_path, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        here, above = os.open(name, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    file = tmp_path / "/".join(["d"] * 1200) / "a.py"
    file.write_text(HARMLESS)
    found = scan_paths([tmp_path], CWES)
    # What removes temporary directories goes no deeper than Python's stack.
    file.unlink()
    for name in reversed(names):
        here, below = os.open("..", os.O_RDONLY, dir_fd=here), here
        os.close(below)
        os.rmdir(name, dir_fd=here)
    os.close(here)
    assert [each.path for each in found if each.verdict.verdict == "not_found"] == [file]
    # No path is as long as the longest that the system takes: what lies below is said to be unseen.
    reasons = [each.verdict.reason for each in found if each.verdict.reason]
    assert reasons == ["can not be listed: File name too long"]


@pytest.mark.usefixtures("no_semgrep")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("# -*- coding: latin-1 -*-\n{}x = 'é'\n".encode("latin-1"), ""),
        ("\ufeff{}x = 'é'\n".encode(), ""),
        ("# coding: shift_jis\n{}x = 'あ'\n".encode("shift_jis"), ""),
        (b"{}x = '\xe9'\n", "not UTF-8 text"),
        (b"# coding: ascii\n{}x = '\xe9'\n", "not ASCII text"),
        (b"# coding: klingon\n{}x = 1\n", "unknown encoding: klingon"),
        (b"# coding: rot13\n{}x = 1\n", "not ROT13 text"),
        (b"# coding: punycode\n{}x = 1\n", "unknown encoding: punycode"),
    ],
)
def test_a_file_is_read_in_the_encoding_that_it_declares(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(content.replace(b"{}", LOAD.vulnerable.encode()))
    [found] = scan_paths([tmp_path], CWES)
    assert found.verdict.reason == reason
    assert found.verdict.cwes == ([] if reason else [502])


def test_a_declared_encoding_hides_nothing_from_the_scanners(no_semgrep: list[int]) -> None:
    # Read as UTF-7, all of it is one comment.
    text = f"# coding: utf-7\nx = 1 #{LOAD.vulnerable}".replace("#import", "\nimport")
    assert scan([text])[0].cwes == [502]


def test_the_table_and_the_rules_name_each_other() -> None:
    ids = [rule["id"] for rule in json.loads(with_semgrep.rules())["rules"]]
    assert sorted(ids) == sorted(table.SEMGREP)
    assert tuple(CWES) == MEASURED
    for rules in table.RULES.values():
        assert {rule.cwe for rule in rules.values()} <= CWES.keys()
    assert {rule.cwe for rule in table.SEMGREP.values()} == CWES.keys()


def test_import_rules_and_weak_findings_do_not_count() -> None:
    assert not [rule for rule in table.BANDIT if rule.startswith("B4")]
    assert table.cwe_of("bandit", "B604", "HIGH") == 78
    assert table.cwe_of("bandit", "B604", "LOW") is None
    assert table.cwe_of("bandit", "B403", "HIGH") is None
