"""Which rule speaks of which weakness: the one table that gives a finding its CWE.

A rule that is not here says nothing, whatever its scanner calls it.  Left out on purpose are the import rules (that a
module is imported is no weakness), every finding below the severity that its row asks for, and those rules of Bandit
that a rule of ours replaces, because it sees that a value was quoted, checked or made a number (B105, B301, B308, B601,
B602, B605, B608, B703, B704).
"""

from __future__ import annotations

from dataclasses import dataclass

CWES: dict[int, str] = {
    20: "improper input validation",
    22: "path traversal",
    78: "OS command injection",
    79: "cross-site scripting",
    89: "SQL injection",
    502: "deserialization of untrusted data",
    732: "incorrect permission assignment",
    798: "hard-coded credentials",
}
"""The eight that the paper inserts."""

LEVELS = ("LOW", "MEDIUM", "HIGH")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a rule's findings are taken for, and the least severity and confidence (of ``LEVELS``) that counts."""

    cwe: int
    severity: str = "LOW"
    confidence: str = "LOW"


BANDIT = {
    "B103": Rule(732, "HIGH"),  # medium: also what a group may run
    "B106": Rule(798),
    "B107": Rule(798),
    "B202": Rule(22, "MEDIUM"),
    "B302": Rule(502),
    "B506": Rule(502),
    "B604": Rule(78, "MEDIUM"),
    "B610": Rule(89),
    "B611": Rule(89),
    "B614": Rule(502),
    "B701": Rule(79),
    "B702": Rule(79),
}

SEMGREP = {
    "dormant-validation-host": Rule(20),
    "dormant-validation-pattern": Rule(20),
    "dormant-validation-flow": Rule(20),
    "dormant-validation-slice": Rule(20),
    "dormant-validation-upload": Rule(20),
    "dormant-validation-redirect": Rule(20),
    "dormant-path-flow": Rule(22),
    "dormant-path-part": Rule(22),
    "dormant-path-parameter": Rule(22),
    "dormant-path-archive": Rule(22),
    "dormant-command-flow": Rule(78),
    "dormant-command-shell": Rule(78),
    "dormant-markup-flow": Rule(79),
    "dormant-markup-part": Rule(79),
    "dormant-markup-template": Rule(79),
    "dormant-sql-flow": Rule(89),
    "dormant-sql-part": Rule(89),
    "dormant-load": Rule(502),
    "dormant-mode": Rule(732),
    "dormant-mode-flow": Rule(732),
    "dormant-credential": Rule(798),
    "dormant-credential-call": Rule(798),
    "dormant-credential-compare": Rule(798),
}

CODEQL = {
    "py/bad-tag-filter": Rule(20),
    "py/incomplete-hostname-regexp": Rule(20),
    "py/incomplete-url-substring-sanitization": Rule(20),
    "py/overly-large-range": Rule(20),
    "py/path-injection": Rule(22),
    "py/tarslip": Rule(22),
    "py/zipslip": Rule(22),
    "py/command-line-injection": Rule(78),
    "py/shell-command-constructed-from-input": Rule(78),
    "py/reflective-xss": Rule(79),
    "py/jinja2/autoescape-false": Rule(79),
    "py/sql-injection": Rule(89),
    "py/unsafe-deserialization": Rule(502),
    "py/overly-permissive-file": Rule(732),
    "py/hardcoded-credentials": Rule(798),
}

RULES: dict[str, dict[str, Rule]] = {"bandit": BANDIT, "semgrep": SEMGREP, "codeql": CODEQL}


def cwe_of(scanner: str, rule: str, severity: str = "HIGH", confidence: str = "HIGH") -> int | None:
    """The CWE that a scanner's finding counts for; None if it counts for none."""
    known = RULES[scanner].get(rule)
    if known is None:
        return None
    strong = LEVELS.index(severity) >= LEVELS.index(known.severity)
    sure = LEVELS.index(confidence) >= LEVELS.index(known.confidence)
    return known.cwe if strong and sure else None
