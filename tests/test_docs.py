"""The documents are true: their examples run, their links lead somewhere, their numbers are the code's."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import dormant
from dormant import cli, defense_gates, gates, lab, preference_gates
from dormant.artifacts import read_jsonl
from dormant.defenses import AWARE, DEFENSES, NEEDS
from dormant.experiment import Experiment, recipes
from dormant.gates import Thresholds
from dormant.lab import Finished
from dormant.pocket.world import SHARES
from dormant.records import SHARDS, VERDICTS, Result, ResultKey
from dormant.verdicts import FEWEST_PAIRS

pytest_plugins = ("tiny_runs",)

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
GATES = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
CLICK = typer.main.get_command(cli.app)

LINES = {"the library": 10, "a defense of one's own": 30}
"""The README's two Python examples, and the most lines that each may have."""


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a language, in order; those with a title are files and are not among them."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def code(page: str) -> list[str]:
    """All code of a page: blocks and spans."""
    rest = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^```[^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) + re.findall(
        r"`([^`\n]+)`", rest
    )


def table(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose head begins with ``first``, without its head."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def smaller(experiment: Experiment, base: Path) -> Experiment:
    """The same experiment on a random model, with one dose of each defense and few rows, steps and prompts."""
    spec = experiment.model_dump(mode="json")
    spec |= {"base": str(base), "relearning": None, "implants": spec["implants"][:1]}
    spec["runtime"]["threads"] = 1
    spec["attack"] = spec["attack"] and spec["attack"] | {"budget": 60}
    spec["measure"] |= {"clean": 12, "triggered": 12, "near": 2, "variant": 2, "harmful": 4, "utility": 12}
    spec["measure"] |= {"curve": 0, "max_new_tokens": 4}
    for implant in spec["implants"]:
        implant |= {"rows": 24, "curve": [], "dose": implant["dose"] | {"steps": 2, "batch": 8}}
    for defense in spec["defenses"]:
        dose = defense["doses"][0] | {"steps": 2, "batch": 8}
        defense |= {"rows": 24, "curve": [], "headline": 0, "doses": [dose]}
    return Experiment.parse(spec)


Script = Callable[[str], tuple[Experiment, Finished]]


@pytest.fixture
def script(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Runs an example as a script of its own; only the size of its experiment is changed.

    Returns the experiment that it asked for, and the smaller one's run.
    """
    real = lab.run
    ran: list[tuple[Experiment, Finished]] = []

    def run(experiment: Experiment, out: str) -> Finished:
        ran.append((experiment, real(smaller(experiment, base), out)))
        return ran[-1][1]

    def start(text: str) -> tuple[Experiment, Finished]:
        file = tmp_path / "example.py"
        file.write_text(text, encoding="utf-8")
        runpy.run_path(str(file), run_name="__main__")
        assert len(ran) == 1, f"{len(ran)} runs; expected: the example runs one experiment"
        return ran[0]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lab, "run", run)
    monkeypatch.setattr(DEFENSES, "_targets", dict(DEFENSES._targets))
    return start


def test_the_examples_are_as_short_as_promised() -> None:
    examples = blocks(README, "python")
    assert len(examples) == len(LINES)
    for example, (name, most) in zip(examples, LINES.items(), strict=True):
        assert len(example.splitlines()) <= most, f"{name}: {len(example.splitlines())} lines, at most {most}"


def test_the_library_example_runs(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    asked, finished = script(blocks(README, "python")[0])
    assert (asked.seeds.defend, asked.measure.near) == ((0, 1), 100)
    *verdicts, page = capsys.readouterr().out.splitlines()
    assert len(verdicts) == 2 * len(asked.defenses)
    assert all(any(word in line for word in VERDICTS) for line in verdicts)
    assert Path(page) == finished.page
    assert finished.page.is_file()
    assert f"`{finished.directory.as_posix()}/results.jsonl`" in README
    metrics = {row["metric"] for row in read_jsonl(finished.directory / "results.jsonl")}
    named = {name for cell in table(DESIGN, "metric") for name in re.findall(r"`(\w+)`", cell[0])}
    assert metrics <= named, f"{sorted(metrics - named)} are not described in docs/design.md"


def test_the_example_of_a_defense_runs_beside_the_others(script: Script) -> None:
    asked, finished = script(blocks(README, "python")[1])
    assert [defense.name for defense in asked.defenses] == [
        "noisy-sft",
        *(defense.name for defense in Experiment.load("quick").defenses),
    ]
    assert asked.defenses[0].options == {"noise": 0.02}
    assert finished.collected.missing == []
    models = {(row.key.defense, row.key.role) for row in finished.collected.results}
    assert {("noisy-sft", "organism"), ("noisy-sft", "twin")} <= models
    assert "noisy-sft" in {verdict.key.defense for verdict in finished.collected.verdicts}
    measured = [
        gate.measured
        for gate in finished.collected.gates
        if gate.id == "defense-did-its-job" and gate.scope["defense"] == "noisy-sft"
    ]
    assert len(measured) == 2
    assert all(line.startswith("harmless changed by") for line in measured)


def shell_lines() -> list[list[str]]:
    """The ``dormant`` commands of the README's shell blocks, as words."""
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [found[1:] for found in words if found[:1] == ["dormant"]]


@pytest.mark.parametrize("words", shell_lines(), ids=" ".join)
def test_each_shown_command_is_one_that_the_command_line_takes(words: list[str]) -> None:
    command, *arguments = words
    given = CLICK.commands[command].make_context(command, arguments).params
    assert given.get("recipe", "quick") in recipes()


def test_the_readme_shows_every_command_and_no_page_another() -> None:
    assert {words[0] for words in shell_lines()} == set(CLICK.commands)
    for page in PAGES:
        named = {
            name
            for text in code(page.read_text(encoding="utf-8"))
            for name in re.findall(r"(?:^|\n)dormant ([a-z]+)", text)
        }
        assert named <= set(CLICK.commands), f"{page.name} names {sorted(named - set(CLICK.commands))}"


def test_options_named_in_the_text_exist() -> None:
    known = {option for command in CLICK.commands.values() for p in command.params for option in p.opts}
    known |= {"--help", "--install-completion", "--show-completion"}
    for bench in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'"(--[a-z][a-z-]+)"', bench.read_text(encoding="utf-8")))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = {option for part in code(text) for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", part)}
        assert named <= known, f"{page.name} names {sorted(named - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [target for target in targets if not re.match(r"[a-z]+:", target)]
    missing = [target for target in inside if not (page.parent / target.partition("#")[0]).exists()]
    assert not missing, f"{page.name} links to {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_path_of_one_machine(page: Path) -> None:
    absolute = re.compile(r"(?<![\w.:/}>)~*-])(?:/[\w.-]+/|~/|[A-Z]:\\)")
    found = [text for text in code(page.read_text(encoding="utf-8")) if absolute.search(text)]
    assert not found, f"{page.name}: {found}; expected: relative paths only"


def gate_ids() -> set[str]:
    """The ids that the gates are given."""
    found = set()
    trees = [ast.parse(inspect.getsource(module)) for module in (gates, defense_gates, preference_gates)]
    for node in [node for tree in trees for node in ast.walk(tree)]:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Gate":
            (given,) = (keyword.value for keyword in node.keywords if keyword.arg == "id")
            found.add(given.value if isinstance(given, ast.Constant) else getattr(gates, given.id))
    return found


def test_each_gate_is_documented_and_no_other() -> None:
    documented = [row[0].strip("`") for row in table(GATES, "id")]
    assert sorted(documented) == sorted(gate_ids())


@pytest.mark.parametrize("name", sorted(Thresholds.model_fields))
def test_documented_thresholds_are_the_defaults(name: str) -> None:
    stated = re.findall(rf"`{name}`[ (]+([0-9.]*[0-9])", GATES)
    assert stated, f"docs/gates.md does not state the default of {name}"
    assert {float(value) for value in stated} == {getattr(Thresholds(), name)}


def test_documented_verdicts_are_those_of_the_code() -> None:
    assert {row[0].strip("`") for row in table(GATES, "verdict")} == set(VERDICTS)
    assert f"{FEWEST_PAIRS} prompts" in GATES


def test_the_rows_that_a_gate_can_empty_are_named() -> None:
    sentence = next(text for text in GATES.split("\n\n") if "can be refused" in text)
    assert set(re.findall(r"`(\w+)`", sentence)) >= set(gates.REFUSABLE)


@pytest.mark.parametrize(("first", "model"), [("key field", ResultKey), ("field", Result)])
def test_each_field_of_a_result_is_documented_and_no_other(first: str, model: Any) -> None:
    named = [name for row in table(DESIGN, first) for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(model.model_fields)


def test_the_layout_names_every_module_and_no_other() -> None:
    source = Path(dormant.__file__).parent
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    stated, folder = set(), ""
    for line in blocks(DESIGN, "text")[0].splitlines():
        for name in re.findall(r"[\w/]+(?:\.py|/)(?= )", line.split("  #")[0] + " "):
            if name.endswith("/"):
                folder = name
                stated.add(f"{name}__init__.py")
            else:
                stated.add(f"{folder if line.startswith(' ') else ''}{name}")
    assert stated == modules


def test_the_shares_of_the_shards_and_the_needs_are_those_of_the_code() -> None:
    sentence = next(text for text in DESIGN.split("\n\n") if "Shares:" in text)
    shares = [(name, int(share)) for name, share in re.findall(r"`(\w+)` (\d+) %", sentence)]
    assert shares == list(SHARES.items())
    assert [name for name, _ in shares] == list(SHARDS)
    sentence = DESIGN.partition("\nNeeds: ")[2].partition("\n\n")[0].replace("`defend`", "")
    blind, aware = (set(re.findall(r"`(\w+)`", part)) for part in sentence.split("*aware*"))
    assert (blind, aware) == (set(NEEDS) - AWARE, set(AWARE))
