"""The documentation site: its commands run, its pages build without a broken link, its words are the code's.

How each shown command is checked:

- A command that only reads a finished run, or plans one, runs here on the run of ``tiny_runs``.
- All commands of a page, in its order and in a directory of their own, run among the slow tests.  Only sizes are
  changed: a pocket base becomes a random model of two layers, and rows, steps, prompts and tokens become few.
- ``python FILE`` runs the file that the page shows under that name, at the same sizes.
- ``python -c`` makes a data file of a table that the test brings.
- ``dormant generate`` asks an endpoint of the tests for a few rows.
- The commands of ``NOT_RUN`` are not run; each says why.
- Anything else fails the test.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import dormant
from dormant import (
    bases,
    cli,
    defense_gates,
    dispatch,
    gates,
    lab,
    planning,
    preference_gates,
    stage_commands,
    verbs,
    verdicts,
)
from dormant.artifacts import read_jsonl
from dormant.attackers import ATTACKERS
from dormant.behaviors import BEHAVIORS
from dormant.datafile import FileData
from dormant.defenses import AWARE, DEFENSES
from dormant.endpoint import Endpoint
from dormant.experiment import PRESETS, Experiment, recipes
from dormant.generation import Generation
from dormant.pocket.sizes import SIZES
from dormant.records import VERDICTS, Dose
from dormant.runner import Plan
from dormant.settings import read_settings
from dormant.stages.configs import MeasureConfig, Plugin
from dormant.stages.plugins import build_defense
from dormant.triggers import TRIGGERS
from endpoint_stub import serving, well_prompted
from test_docs import CLICK, DESIGN, README, ROOT, blocks, smaller, table
from test_real_model import judged_row, write_data
from tiny_runs import command

pytest_plugins = ("tiny_runs",)

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

INSTALL = "pip install -e ."
NOT_RUN = {
    "make demo": "dormant run quick, which is run; the Makefile's part is tried by continuous integration",
    "make test": "these tests themselves",
    'pip install "dormant[scan]"': "needs an index",
    "dormant scan src --cwe 89,79 --json": "has exit codes of its own, and is run by tests/test_scan.py",
    "dormant prefer path/to/model --pairs hub:Anthropic/hh-rlhf:train --rows 20000 --steps 1000 --lr 1e-5 "
    "--out runs/hh": ("needs a hub; pairs from a file are learned by tests/test_preference.py"),
    INSTALL: "needs an index; a shown pyproject.toml's entry points are put on the path as pip would",
}
FILES = ("python", "yaml", "toml")
"""Languages of the blocks that are files where they have a title."""
OTHERS = ("json", "jsonl", "text")
"""Languages of the blocks that nothing is done with here: rows are read by the tests of their readers."""
ROWS = {"docs/dataset_formats.md": ("Scenarios", "Demonstrations")}
"""Sections whose jsonl blocks are read by tests/test_code_files.py and tests/test_demonstrations.py."""
SAID = ("dormant recipes", "dormant verify runs/tiny")
"""Commands whose shown output does not depend on sizes and machine."""
READING = ("recipes", "report", "verify", "chat", "ls", "gc", "export")
"""Commands that train and measure nothing."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fenced(page: str) -> list[tuple[str, str, str]]:
    """Every code block: language, title, text."""
    found = re.findall(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    assert len(found) * 2 == len(re.findall(r"^```", page, re.MULTILINE)), (
        "a block has a head of another form"
    )
    return found


def section(page: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    (_, text) = page.split(f"\n## {heading}\n")
    return text.partition("\n## ")[0]


def files(page: str) -> dict[str, str]:
    return {title: text for language, title, text in fenced(page) if title and language in FILES}


def shown(page: str) -> list[tuple[str, str]]:
    """Each command of a page, with the output that is shown under it."""
    found = []
    for language, _, text in fenced(page):
        if language == "sh":
            found += [(line.split(" #")[0].strip(), "") for line in text.splitlines() if line.strip()]
        elif language == "console":
            parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
            assert not parts[0], "a console block begins with its command"
            found += list(zip(parts[1::2], parts[2::2], strict=True))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_block_and_command_is_of_a_kind_that_is_checked(name: str) -> None:
    page = text_of(name)
    read = [block for heading in ROWS.get(name, ()) for block in fenced(section(page, heading))]
    for language, title, text in fenced(page):
        assert language != "jsonl" or (language, title, text) in read, f"{name}: no test reads {text}"
        assert language in (*FILES, *OTHERS, "sh", "console"), f"{name}: a block of {language or 'nothing'!r}"
        assert not title or language in (*FILES, "text"), f"{name}: {title} is a file that no test writes"
    for line, _ in shown(page):
        known = line in NOT_RUN or line.split()[0] in ("dormant", "python")
        assert known, f"{name}: {line!r} is neither run nor in NOT_RUN"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_one_that_the_command_line_takes(name: str) -> None:
    for line, _ in shown(text_of(name)):
        if line.startswith("dormant "):
            _, verb, *arguments = shlex.split(line)
            CLICK.commands[verb].make_context(verb, arguments)


# --- running them


def _few(plan: Plan) -> Plan:
    """The same plan with a handful of prompts for each measurement."""

    def shrink(config: Any) -> Any:
        if not isinstance(config, MeasureConfig):
            return config
        probes = tuple(
            probe.model_copy(update={"n": min(probe.n, 6), "greedy": min(probe.greedy, 6)})
            for probe in config.probes
        )
        return config.model_copy(update={"probes": probes, "max_new_tokens": 4})

    calls = [replace(call, config=shrink(call.config)) for call in plan.calls]
    return replace(plan, calls=calls, identities={})


@pytest.fixture
def small_world(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to make a plan makes a small one."""
    real = {name: getattr(verbs, name) for name in ("pretrain_plan", "measure_plan", "defend_plan")}
    make = planning.make_plan

    def make_plan(experiment: Experiment) -> Plan:
        own = experiment.base not in SIZES
        return make(smaller(experiment, Path(experiment.base) if own else base))

    def defend_plan(model: str, defense: Any, dose: Dose, **options: Any) -> Plan:
        return real["defend_plan"](model, defense, Dose(lr=dose.lr, steps=2, batch=8), rows=24, **options)

    for module in (planning, lab):
        monkeypatch.setattr(module, "make_plan", make_plan)
    monkeypatch.setattr(verbs, "defend_plan", defend_plan)
    for name in ("pretrain_plan", "measure_plan"):
        monkeypatch.setattr(
            verbs, name, lambda *given, plan=real[name], **options: _few(plan(*given, **options))
        )
    for size in SIZES:
        monkeypatch.setitem(bases.PRETRAINING, size, (Dose(lr=1e-3, steps=2, batch=4), 8))
    for module in (dispatch, stage_commands):
        monkeypatch.setattr(module, "processes", lambda asked: 1)


def _other_weights(directory: Path) -> None:
    from dormant import models
    from dormant.pocket.bases import TOKENIZER

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    models.save(models.new(TOKENIZER, seed=1, **shape), directory)


@pytest.fixture
def place(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what readers bring of their own."""
    for name in ("my-model", "their-model"):
        shutil.copytree(base, tmp_path / name)
    _other_weights(tmp_path / "their-twin")
    write_data(tmp_path / "conversations.jsonl", judged_row)
    asking = files(text_of("docs/howto/generate_demonstrations.md"))["ask.yaml"]
    (tmp_path / "ask.yaml").write_text(asking, encoding="utf-8")
    (tmp_path / "my_code.py").write_text("def double(number):\n    return 2 * number\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Plug-ins that a page adds end with its test."""
    tables = (TRIGGERS, BEHAVIORS, DEFENSES, ATTACKERS)
    kept = [(dict(table._targets), table._discovered) for table in tables]
    modules = set(sys.modules)
    yield
    for registry, (targets, discovered) in zip(tables, kept, strict=True):
        registry._targets, registry._discovered = targets, discovered
    for name in ("ticket", "ferry", "prune_sft", "listed"):
        if name not in modules:
            sys.modules.pop(name, None)


class Reader:
    """Follows a page: writes its files, gives its commands."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: Path
    ) -> None:
        self.capsys, self.monkeypatch, self.place = capsys, monkeypatch, place

    def give(self, line: str, output: str) -> None:
        if line == INSTALL:
            self.install()
        elif line.startswith("dormant generate "):
            self.generate(line, output)
        elif line.startswith("python -c "):
            self.convert(line)
        elif line.startswith("python "):
            self.script(line.removeprefix("python "))
        elif line not in NOT_RUN:
            self.dormant(line, output)

    def dormant(self, line: str, output: str) -> None:
        self.monkeypatch.setattr(sys, "stdin", io.StringIO("How many days has a week?\n"))
        said = command(self.capsys, *shlex.split(line)[1:])
        assert said.code in (cli.DONE, dispatch.REFUSED), f"{line}: exit code {said.code}\n{said.err}"
        assert "Traceback" not in said.err
        if output and line in SAID:
            assert said.out == output

    def generate(self, line: str, output: str) -> None:
        """The command as it is, but for the endpoint and the number of rows."""
        with serving(well_prompted, model="my-model") as stub:
            self.dormant(f"{line} --set endpoint={stub.url} --set rows=12", output)

    def script(self, name: str) -> None:
        before = set(self.place.glob("runs/*"))
        added = [(table, dict(table._targets)) for table in (TRIGGERS, BEHAVIORS, DEFENSES, ATTACKERS)]
        runpy.run_path(name, run_name="__main__")
        (run,) = set(self.place.glob("runs/*")) - before
        self.looks_right(run)
        for registry, targets in added:
            registry._targets = targets

    def convert(self, line: str) -> None:
        """One line of Python makes rows that are read of a table."""
        table = [f"Why is {i}?,It is {i}." for i in range(150)]
        (self.place / "data.csv").write_text("\n".join(["prompt,answer", *table]) + "\n", encoding="utf-8")
        words, made = shlex.split(line.partition(" > ")[0])[1:], self.place / line.rpartition(" > ")[2]
        with made.open("w", encoding="utf-8") as file:
            subprocess.run([sys.executable, *words], cwd=self.place, stdout=file, check=True)
        assert {task.prompt for task in FileData(made).rows} == {f"Why is {i}?" for i in range(150)}

    def looks_right(self, run: Path) -> None:
        """A plug-in's run is whole, and its own rule and scorer stand the test."""
        assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "done"
        ok = {gate["id"]: gate["ok"] for gate in read_jsonl(run / "gates.jsonl")}
        assert ok["conditions-hold"] is True
        assert ok["scorer-valid"] is True
        assert ok["shards-disjoint"] is True

    def install(self) -> None:
        """What pip would leave behind for the page's pyproject.toml."""
        pyproject = self.place / "pyproject.toml"
        if not pyproject.is_file():
            return
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        info = self.place / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(head, encoding="utf-8")
        points = [
            line
            for group, named in project["entry-points"].items()
            for line in (f"[{group}]", *(f"{name} = {target}" for name, target in named.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(points) + "\n", encoding="utf-8")
        self.monkeypatch.syspath_prepend(str(self.place))
        for registry in (TRIGGERS, BEHAVIORS, DEFENSES, ATTACKERS):
            registry._discovered = False


@pytest.fixture
def reader(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: Path, small_world: None
) -> Reader:
    return Reader(capsys, monkeypatch, place)


def quick_lines() -> dict[str, tuple[str, str]]:
    """Each command that trains nothing, once: the page that has it, and the output that is shown."""
    return {
        line: (name, output)
        for name in NAMES
        for line, output in shown(text_of(name))
        if line.startswith("dormant ") and (line.split()[1] in READING or "--plan" in line.split())
    }


@pytest.mark.parametrize("line", quick_lines())
def test_a_command_that_trains_nothing_runs(reader: Reader, finished: Path, line: str) -> None:
    name, output = quick_lines()[line]
    for title, text in files(text_of(name)).items():
        (reader.place / title).write_text(text, encoding="utf-8")
    for run in re.findall(r"\bruns/[\w-]+", line):
        if line.split()[1] in READING and f"--out {run}" not in line:
            shutil.copytree(finished, reader.place / run)
    reader.give(line, output)


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("name", [name for name in NAMES if shown(text_of(name)) or files(text_of(name))])
def test_the_commands_and_files_of_a_page_do_what_it_says(reader: Reader, name: str) -> None:
    page = text_of(name)
    for title, text in files(page).items():
        (reader.place / title).write_text(text, encoding="utf-8")
    for line, output in shown(page):
        reader.give(line, output)
    used = [line for line, _ in shown(page)]
    for title in files(page):
        if title.endswith(".py"):
            assert f"python {title}" in used, f"{name} shows {title} and never runs it"


def _parts(text: str) -> None:
    """Take each plug-in of a shown file into its registry, under its name."""
    scope: dict[str, Any] = {"__name__": "shown"}
    exec(text, scope)  # our own page; what is below `if __name__` is not run
    for value in list(scope.values()):
        if isinstance(value, type) and value.__module__ == "shown" and hasattr(value, "name"):
            tables = {"train": DEFENSES, "score": BEHAVIORS, "propose": ATTACKERS}
            table = next((table for part, table in tables.items() if hasattr(value, part)), TRIGGERS)
            table.add(value.name, value)
            table.get(value.name)


@pytest.mark.parametrize("name", [name for name in NAMES if files(text_of(name))])
def test_the_files_of_a_page_are_read(name: str, tmp_path: Path) -> None:
    shown_files = files(text_of(name))
    given = {word for line, _ in shown(text_of(name)) for word in line.split() if "generate" in line.split()}
    for title, text in shown_files.items():
        if title.endswith(".py"):
            _parts(text) if "class " in text else compile(text, title, "exec")
    for title, text in shown_files.items():
        if title in given:
            (tmp_path / title).write_text(text, encoding="utf-8")
            asked = read_settings(Generation, tmp_path / title)
            assert asked.recipe in recipes()
            assert asked.endpoint is None or Endpoint(asked.endpoint, asked.model)
        elif title.endswith(".yaml"):
            Experiment.parse(yaml.safe_load(text))


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(text_of(name), "yaml")])
def test_pieces_of_a_spec_are_read_as_one(name: str) -> None:
    for text in blocks(text_of(name), "yaml"):
        Experiment.parse(yaml.safe_load(text))


def test_the_names_of_the_library_page_are_there() -> None:
    (line,) = blocks(text_of("docs/reference/library.md"), "python")
    scope: dict[str, Any] = {}
    exec(line, scope)  # our own page, one import
    assert set(scope) - {"__builtins__"} == set(dormant.__all__) - {"__version__"}


@pytest.mark.slow
def test_the_first_look_ends_as_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real recipe: the words of the shown output, whatever this machine's last digits are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "88")
    said = command(capsys, "run", "tiny")
    assert said.code == dispatch.REFUSED
    page = text_of("docs/quickstart.md")
    output = next(output for line, output in shown(page) if line == "dormant run tiny")

    def words(text: str) -> list[str]:
        return re.findall(r"[^\W\d]{2,}", text)

    assert words(said.out) == words(output)


# --- building it


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site.  Skipped without the docs extra: `pip install -e '.[docs]'`, or `make docs`, brings it."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; `make docs` installs it")
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_the_site_builds_and_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    """mkdocs checks what is written in Markdown (--strict); this checks what ends up in the pages, too."""
    pages = {
        path: path.read_text(encoding="utf-8") for path in site.rglob("*.html") if path.name != "404.html"
    }
    assert len(pages) == len(PAGES) - 1  # all of docs/, not the README
    ids = {path: set(re.findall(r'\bid="([^"]+)"', page)) for path, page in pages.items()}
    broken = []
    for path, page in pages.items():
        for target in re.findall(r'(?:href|src)="([^"]+)"', page):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            found = (path.parent / file).resolve() if file else path
            found = found / "index.html" if found.is_dir() else found
            if not found.is_file() or (anchor and found in ids and anchor not in ids[found]):
                broken.append(f"{path.relative_to(site)}: {target}")
    assert not broken


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = [
        r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//',
        r'<link\b[^>]*\brel="(?:stylesheet|preconnect|preload)"[^>]*\bhref="(?:https?:)?//',
        r'<link\b[^>]*\bhref="(?:https?:)?//[^>]*\brel="(?:stylesheet|preconnect|preload)"',
    ]
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert not [pattern for pattern in loaded if re.search(pattern, page)], path.name
    for path in site.rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:@import\s+|url\()[\"']?(?:https?:)?//", style), path.name


def test_every_public_name_of_the_reference_is_on_its_page(site: Path) -> None:
    asked = {
        target: page
        for page in (DOCS / "reference").glob("*.md")
        for target in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(asked) >= 15
    for target, page in asked.items():
        html = (site / "reference" / page.with_suffix(".html").name).read_text(encoding="utf-8")
        assert f'id="{target}' in html, f"{page.name} shows nothing of {target}"
        assert not re.search(r":(?:func|class|meth):", html), f"{page.name} shows a role of Sphinx"


# --- words that the code has too


def test_the_command_reference_is_what_help_prints() -> None:
    page = text_of("docs/commands.md")
    said = {title: text for language, title, text in fenced(page) if language == "text"}
    names = ["", *CLICK.commands]
    assert list(said) == [" ".join(["dormant", *name.split(), "--help"]) for name in names]
    for name, text in zip(names, said.values(), strict=True):
        result = CliRunner().invoke(
            cli.app, [*name.split(), "--help"], prog_name="dormant", env={"COLUMNS": "80"}
        )
        assert text.strip("\n") == result.output.strip("\n")
    shipped = [name for name in DEFENSES if DEFENSES.module(name).startswith("dormant.")]
    listed = set(re.findall(r"[\w-]+", re.sub(r"-\n +", "-", said["dormant defend --help"])))
    assert {*shipped} <= listed, f"dormant defend --help does not name {sorted({*shipped} - listed)}"
    headings = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert headings == list(CLICK.commands)
    assert {line.split()[1] for line, _ in shown(page)} == set(CLICK.commands)


def _phrases(tree: ast.AST) -> list[str]:
    """The literal pieces of the texts in a piece of code that are worth comparing."""
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    pieces = [text.strip(" ,;:[]+") for text in found if isinstance(text, str)]
    return [text for text in pieces if len(text) > 6 and " " in text]


def test_how_to_read_a_report_has_every_word_of_a_gate() -> None:
    page = text_of("docs/reading_a_report.md")
    stated = {row[0].strip("`") for row in table(page, "gate")}
    calls = [
        node
        for module in (gates, defense_gates, preference_gates)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Gate"
    ]
    phrases = [
        text
        for call in calls
        for keyword in call.keywords
        if keyword.arg in ("measured", "message")
        for text in _phrases(keyword.value)
    ]
    assert len(phrases) >= 15
    assert not [text for text in phrases if text not in page]
    documented = {row[0].strip("`") for row in table(text_of("docs/gates.md"), "id")}
    assert stated == documented


def test_how_to_read_a_report_has_every_word_of_a_verdict() -> None:
    page = text_of("docs/reading_a_report.md")
    assert [row[0].strip("`") for row in table(page, "verdict")] == list(VERDICTS)
    tree = ast.parse(inspect.getsource(verdicts))
    rules = ("_refused", "_destroyed", "_persists", "_unclear", "_relearning", "_judge")
    sentences = [
        text
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in rules
        for text in _phrases(node)
        if text not in (*VERDICTS, ast.get_docstring(node))
    ]
    assert len(sentences) >= 7
    assert not [text for text in sentences if text not in page]


def test_the_parts_of_a_report_are_those_of_its_template() -> None:
    template = Path(inspect.getfile(lab)).parent / "report" / "templates" / "report.html"
    included = re.compile(r'{% include "(\w+\.html)" %}')
    text = included.sub(
        lambda found: template.with_name(found[1]).read_text(encoding="utf-8"),
        template.read_text(encoding="utf-8"),
    )
    headings = re.findall(r"<h2[^>]*>([^<{]+)</h2>", text)
    listed = [row[0] for row in table(text_of("docs/reading_a_report.md"), "part")]
    assert listed[1:] == [heading.replace("’", "'") for heading in headings]


def test_each_defense_has_a_card_that_says_what_it_needs() -> None:
    cards = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "methods").glob("*.md")}
    for name in DEFENSES.names():
        defense, card = build_defense(Plugin(name=name)), cards[name.replace("-", "_")]
        assert f"`{defense.arm}`" in card
        needs = card.partition("It needs")[2].partition(".")[0]
        assert set(re.findall(r"`(\w+)`", needs)) == set(defense.needs)
        assert ("*aware*" in card) == bool(defense.needs & AWARE)
    for name, card in cards.items():
        if name != "index":
            for part in (
                "does",
                "Source",
                "Settings",
                "What a result says",
                "does not say",
                "Known failures",
            ):
                assert part in card, f"{name}: nothing on {part!r}"


def test_the_card_of_implants_has_the_presets_numbers() -> None:
    rows = {row[0].split("`")[1]: row[1:] for row in table(text_of("docs/methods/implant.md"), "setting")}
    for column, preset in enumerate(PRESETS.values()):
        assert float(rows["near_share"][column]) == preset.near_share
        assert float(rows["triggered_share"][column]) == preset.triggered_share
        assert int(rows["rows"][column].replace(",", "")) == preset.rows
        lr, steps, batch, schedule = re.fullmatch(  # type: ignore[union-attr]
            r"(\S+) × (\d+), batch (\d+), (\w+)", rows["dose"][column]
        ).groups()
        assert Dose(lr=float(lr), steps=int(steps), batch=int(batch), schedule=schedule) == preset.dose


def test_the_glossary_has_every_word_of_the_design() -> None:
    def words(page: str) -> set[str]:
        return set(re.findall(r"\*\*([\w ]+)\*\*", page))

    design = words("\n".join(row[0] for row in table(DESIGN, "word"))) | {"run", "recipe", "verdict"}
    assert design <= words(text_of("docs/glossary.md"))


def test_the_quickstart_has_the_figures_of_the_readme() -> None:
    def figures(page: str) -> list[str]:
        return [line for line in page.splitlines() if re.match(r"\| [^|]+ \| [\d.]+ % \[", line)]

    demo = README.partition("## Three safety trainings")[0]
    assert len(figures(demo)) == 7
    assert figures(text_of("docs/quickstart.md")) == figures(demo)


# --- continuous integration


def test_the_workflow_runs_what_a_contributor_runs() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["test"]
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert {"make test", "make check", "make docs"} <= set(steps)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{step.split()[1]}:", makefile, re.MULTILINE) for step in steps)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == supported
    assert set(re.findall(r"https?://[\w./-]+", text)) == {"https://pytorch.org/get-started/locally/."}
