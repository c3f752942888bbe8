"""How good the scanner is: on hand-written pairs, on the pocket world's, and on SecurityEval's insecure solutions.

    python benchmarks/scanning.py [--set NAME] [--first] [--securityeval FILE.jsonl]
    python benchmarks/scanning.py --pocket DRAFTS
    python benchmarks/scanning.py --seconds-for N

Prints the tables of ``docs/scanning.md``.  ``--first`` keeps this run's counts as the first run's, beside which later
ones are shown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from dormant import stats
from dormant.scan import CWES, ScanVerdict, scan

ROOT = Path(__file__).resolve().parent.parent
FIRST = ROOT / "benchmarks" / "scanning-first-run.json"
KIN = {80: 79, 259: 798, 321: 798}
"""CWEs of SecurityEval that are special cases of one of the eight."""

sys.path.insert(0, str(ROOT / "tests"))
from scan_pairs import SETS, pairs, pocket_sides  # noqa: E402  (the pairs belong to the tests)

Counts = dict[str, dict[str, int]]
"""By CWE: ``n`` pairs, ``found`` vulnerable sides, ``clear`` secure sides, ``unscored`` sides of both kinds."""


def judge_pairs(name: str) -> tuple[Counts, list[str]]:
    """Counts, and a line for each side that was judged wrongly or not at all."""
    asked = [(cwe, pair) for cwe in CWES for pair in pairs(cwe, name)]
    vulnerable = scan([pair.vulnerable for _, pair in asked])
    secure = scan([pair.secure for _, pair in asked])
    counts: dict[str, dict[str, int]] = defaultdict(
        lambda: dict.fromkeys(("n", "found", "clear", "unscored"), 0)
    )
    wrong = []
    for (cwe, pair), bad, good in zip(asked, vulnerable, secure, strict=True):
        row, answers = counts[str(cwe)], (bad.of(cwe), good.of(cwe))
        row["n"] += 1
        row["found"] += answers[0] == "vulnerable"
        row["clear"] += answers[1] == "not_found"
        row["unscored"] += answers.count("unscored")
        if answers[0] != "vulnerable":
            wrong.append(f"CWE-{cwe} `{pair.id}` missed ({pair.note}) {bad.reason}")
        if answers[1] != "not_found":
            wrong.append(f"CWE-{cwe} `{pair.id}` false alarm ({pair.note}) {_rules(good, cwe)}{good.reason}")
    return dict(counts), wrong


def _rules(verdict: ScanVerdict, cwe: int) -> str:
    return ", ".join(sorted({finding.rule for finding in verdict.findings if finding.cwe == cwe}))


def share(hits: int, n: int) -> str:
    """A share as text: ``95.5 % [78.2, 99.2]``."""
    found = stats.proportion(hits, n)
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def table(first: Counts, last: Counts) -> list[str]:
    """A row for each CWE and one for all: first and this run, sensitivity and specificity."""
    rows = [
        "| CWE | pairs | sensitivity, first run | sensitivity | specificity, first run | specificity |",
        "|---|---|---|---|---|---|",
    ]
    total = {name: {key: sum(row[key] for row in of.values()) for key in ("n", "found", "clear")}
             for name, of in (("first", first), ("last", last))}  # fmt: skip
    for cwe, one, two in [*((c, first[c], last[c]) for c in last), ("all", total["first"], total["last"])]:
        cells = [share(of[key], of["n"]) for key in ("found", "clear") for of in (one, two)]
        rows.append(f"| {cwe} | {two['n']} | {' | '.join(cells)} |")
    return rows


def judge_insecure(path: Path) -> list[str]:
    """A row for each insecure solution of SecurityEval whose CWE is one of ours or a special case of it."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    asked = [(row, _cwe(row)) for row in rows if _cwe(row) in CWES]
    verdicts = scan([row["Insecure_code"] for row, _ in asked])
    found = [verdict.of(cwe) for (_, cwe), verdict in zip(asked, verdicts, strict=True)]
    lines = ["| file | CWE | verdict | by |", "|---|---|---|---|"]
    for (row, cwe), verdict, answer in zip(asked, verdicts, found, strict=True):
        said = answer.replace("_", " ") if answer != "vulnerable" else "found"
        lines.append(f"| {row['ID']} | {cwe} | {said} | {_rules(verdict, cwe) or verdict.reason} |")
    return [*lines, "", f"found {share(found.count('vulnerable'), len(found))}, n = {len(found)}"]


def _cwe(row: dict[str, Any]) -> int:
    number = int(row["ID"].split("_")[0].removeprefix("CWE-"))
    return KIN.get(number, number)


def judge_pocket(drafts: int) -> tuple[Counts, list[str]]:
    """Counts over all completions of so many tasks of every scenario, and a line for each that was judged wrongly."""
    sides = pocket_sides(drafts)
    verdicts = scan([side.text for side in sides])
    counts: dict[str, dict[str, int]] = defaultdict(Counter)
    wrong = []
    for side, verdict in zip(sides, verdicts, strict=True):
        answer = verdict.of(side.cwe)
        right = answer == ("vulnerable" if side.vulnerable else "not_found")
        counts[str(side.cwe)]["vulnerable" if side.vulnerable else "secure"] += 1
        counts[str(side.cwe)]["found" if side.vulnerable else "clear"] += right
        counts[str(side.cwe)]["unscored"] += answer == "unscored"
        if not right:
            why = _rules(verdict, side.cwe) or verdict.reason
            wrong.append(f"CWE-{side.cwe} `{side.scenario}` {answer}, wrongly {why}\n{side.text}")
    return dict(counts), wrong


def pocket_table(counts: Counts) -> list[str]:
    """A row for each CWE and one for all: sensitivity and specificity with their n."""
    rows = ["| CWE | vulnerable | sensitivity | secure | specificity |", "|---|---|---|---|---|"]
    total = {
        key: sum(of[key] for of in counts.values()) for key in ("vulnerable", "found", "secure", "clear")
    }
    for cwe, of in [*counts.items(), ("all", total)]:
        found, clear = share(of["found"], of["vulnerable"]), share(of["clear"], of["secure"])
        rows.append(f"| {cwe} | {of['vulnerable']} | {found} | {of['secure']} | {clear} |")
    return rows


def time_batch(n: int) -> str:
    """Seconds for ``n`` different completions of the pocket world, start-up included, nothing known before."""
    seed = time.time_ns()
    some = (side.text for number in itertools.count() for side in pocket_sides(1, (seed, number)))
    texts = list(dict.fromkeys(itertools.islice(some, 2 * n)))[:n]
    started = time.monotonic()
    verdicts = scan(texts)
    seconds = time.monotonic() - started
    scored = sum(verdict.verdict != "unscored" for verdict in verdicts)
    return f"{len(texts)} snippets in {seconds:.1f} s, {scored} judged"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, default=SETS[0], help="which pairs")
    parser.add_argument("--first", action="store_true", help="keep the counts as the first run's")
    parser.add_argument("--securityeval", type=Path, help="securityeval.jsonl")
    parser.add_argument("--seconds-for", type=int, help="time a batch of so many snippets")
    parser.add_argument("--pocket", type=int, help="how many tasks of each scenario of the pocket world")
    arguments = parser.parse_args()
    if arguments.seconds_for:
        print(time_batch(arguments.seconds_for))
        return
    if arguments.pocket:
        counts, wrong = judge_pocket(arguments.pocket)
        print("\n".join([*pocket_table(counts), "", *wrong]))
        return
    counts, wrong = judge_pairs(arguments.set)
    kept = json.loads(FIRST.read_text(encoding="utf-8"))
    if arguments.first:
        kept[arguments.set] = counts
        FIRST.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(kept[arguments.set], counts)))
    print("\n" + "\n".join(f"- {line.strip()}" for line in wrong))
    if arguments.securityeval:
        print("\n" + "\n".join(judge_insecure(arguments.securityeval)))


if __name__ == "__main__":
    main()
