"""What ships is what is declared: version, types, licence, pins, commands, no paths of one machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import dormant
from architecture import all_imports, read_package

ROOT = Path(__file__).parent.parent
TRACKED_FOLDERS = ("src", "tests", "docs", "recipes", "benchmarks", ".ci")
PIN = re.compile(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """pyproject.toml, read."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """constraints.txt as name -> version; any other kind of line is an error."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    odd = [line for line in lines if not PIN.fullmatch(line)]
    assert not odd, f"{odd}; expected: name==version, without local labels, paths, options or addresses"
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def tracked_texts() -> dict[str, str]:
    """Every text file that is part of the project, by its path from the root."""
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    paths += [path for folder in TRACKED_FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = {}
    for path in paths:
        content = path.read_bytes()
        if b"\0" not in content and "__pycache__" not in path.parts:
            texts[path.relative_to(ROOT).as_posix()] = content.decode("utf-8", errors="replace")
    return texts


def test_the_version_is_written_once(project: dict[str, Any]) -> None:
    assert "version" not in project["project"], "expected: the version stands in dormant/__init__.py alone"
    assert ROOT / project["tool"]["hatch"]["version"]["path"] == ROOT / "src" / "dormant" / "__init__.py"
    assert str(Version(dormant.__version__)) == dormant.__version__


def test_the_changelog_has_a_place_for_the_next_change() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings
    assert headings[0] == "Unreleased"


def test_types_are_shipped() -> None:
    assert (files("dormant") / "py.typed").is_file()


def test_every_exported_name_is_there() -> None:
    missing = [name for name in getattr(dormant, "__all__", []) if not hasattr(dormant, name)]
    assert not missing, f"dormant.__all__ names {missing}; expected: each can be imported from dormant"


def test_the_licence_is_apache(project: dict[str, Any]) -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text
    assert project["project"]["license"] == "Apache-2.0"


def test_every_dependency_is_pinned_within_its_range(project: dict[str, Any], pins: dict[str, str]) -> None:
    extras = project["project"]["optional-dependencies"]
    declared = [*project["project"]["dependencies"], *extras["dev"], *extras["scan"]]
    for requirement in map(Requirement, declared):
        pinned = pins.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement.name}; expected: a line in constraints.txt"
        assert pinned in requirement.specifier, f"pinned {pinned}; expected: within {requirement}"


def test_every_import_is_declared(project: dict[str, Any]) -> None:
    extra = project["project"]["optional-dependencies"]["scan"]
    wanted = project["project"]["dependencies"] + extra
    declared = {canonicalize_name(Requirement(r).name) for r in wanted}
    imported = {found.target.split(".")[0] for found in all_imports(read_package(ROOT / "src" / "dormant"))}
    providers = packages_distributions()
    for module in (imported & providers.keys()) - {"dormant"}:
        names = {canonicalize_name(name) for name in providers[module]}
        assert names & declared, f"{module} (of {sorted(names)}); expected: declared in pyproject.toml"


MACHINE_PATH = re.compile(r"(?<![\w.~}>)-])/(?:home|Users|root|opt|mnt|srv|work|workspace)/\w")
INDEX_ADDRESS = re.compile(r"(?:index-url|find-links|trusted-host)[=\s]+[\"']?(?:\w+://|/)")


@pytest.mark.parametrize("pattern", [MACHINE_PATH, INDEX_ADDRESS], ids=["path", "index"])
def test_no_file_names_one_machine(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line) and name != "tests/test_package.py"
    ]
    assert not found, "expected: no path or package index of one machine in the project\n" + "\n".join(found)


def test_the_machine_patterns_notice() -> None:
    assert MACHINE_PATH.search("out = '/home/ann/runs'")
    assert not MACHINE_PATH.search("https://example.org/home/page, src/home/x, ~/home/x")
    assert INDEX_ADDRESS.search("pip install --extra-index-url https://example.org/simple torch")
    assert not INDEX_ADDRESS.search('--index-url "$(TORCH_INDEX)"')


def targets() -> set[str]:
    """What the Makefile can make."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def code_of(markdown: str) -> str:
    """The code blocks and code spans of a page; prose may say "make a" whatever it likes."""
    blocks = re.findall(r"^```.*?^```", markdown, re.MULTILINE | re.DOTALL)
    return "\n".join(blocks + re.findall(r"`[^`\n]+`", markdown))


def test_documented_make_commands_exist() -> None:
    pages = {name: code_of(text) for name, text in tracked_texts().items() if name.endswith(".md")}
    for name, code in pages.items():
        unknown = set(re.findall(r"\bmake ([a-z]+)", code)) - targets()
        assert not unknown, f"{name} says make {sorted(unknown)}; expected: a target of the Makefile"


def test_continuous_integration_runs_the_documented_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "expected: .ci/run is executable"
    assert "exec make test" in script.read_text()
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_alone_lists_every_command() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {f"make {target}" for target in targets()} <= set(re.findall(r"make [a-z]+", shown))
    assert "TORCH_INDEX" in shown
