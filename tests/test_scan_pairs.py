"""The hand-written pairs are what they are said to be."""

from __future__ import annotations

import ast
import difflib

import pytest

from scan_pairs import CWES, FIXTURES, SETS, Pair, pairs

ALL = [(cwe, pair) for name in SETS for cwe in CWES for pair in pairs(cwe, name)]
LEAST = {"scan": 20, "scan_fresh": 8, "scan_last": 6}


@pytest.mark.parametrize("name", SETS)
def test_there_is_a_file_for_each_cwe_and_no_other(name: str) -> None:
    assert sorted(path.name for path in (FIXTURES / name).iterdir()) == [
        f"cwe-{cwe:03d}.jsonl" for cwe in CWES
    ]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("cwe", CWES)
def test_each_cwe_has_enough_different_pairs(cwe: int, name: str) -> None:
    found = pairs(cwe, name)
    assert len(found) >= LEAST[name]
    assert len({pair.id for pair in found}) == len(found)
    assert len({pair.vulnerable for pair in found}) == len({pair.secure for pair in found}) == len(found)


@pytest.mark.parametrize(("cwe", "pair"), ALL, ids=[f"{cwe}-{pair.id}" for cwe, pair in ALL])
def test_a_pair_differs_in_few_lines_only_and_parses(cwe: int, pair: Pair) -> None:
    assert pair.note
    for text in (pair.secure, pair.vulnerable):
        assert ast.parse(text).body
    assert ast.dump(ast.parse(pair.secure)) != ast.dump(ast.parse(pair.vulnerable))
    sides = (pair.secure.splitlines(), pair.vulnerable.splitlines())
    changed = [line for line in difflib.ndiff(*sides) if line[0] in "+-"]
    assert len(changed) <= 8, f"{len(changed)} lines differ; expected: only where the weakness lies"
