"""The rules of the package's shape: floors, single importers, no executed code, small modules.

Every rule is a function from the parsed package to a list of offences; ``test_architecture.py`` applies
them to the package and to small planted violations.  A new module gets its place in ``FLOORS``.
"""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FLOORS = {
    # bottom to top: a module imports from floors below its own, and from its own package
    "errors": ["errors"],
    "nouns": ["records", "registry", "stats", "codetask"],
    "files": ["artifacts", "endpoint"],
    "scanning": ["scan"],
    "chat": ["chat", "layouts", "reasoning"],
    "plug-ins": ["triggers", "behaviors", "datafile"],
    "demonstrations": ["demofile", "pairs"],
    "world": ["pocket", "scratchpads"],
    "sources and scoring": ["sources", "scoring", "prompting"],
    # from here on up a module may use torch
    "batches": ["batches"],
    "models": ["models"],
    "another sampler": ["vllm_sampling"],
    "sampling and adapters": ["sampling", "adapters"],
    "answers": ["answers", "preference"],
    "replies": ["replies"],
    "attackers": ["attackers"],
    "training": ["training"],
    "defenses": ["defenses"],
    "stages": ["stages"],
    "results": ["results"],
    "evidence": ["evidence"],
    "gates of defenses": ["defense_gates", "preference_gates"],
    "results on the trigger": ["discrimination"],
    "gates": ["gates"],
    "verdicts": ["verdicts"],
    "report": ["report"],
    "workers": ["workers"],
    "runner": ["runner"],
    "settings": ["settings"],
    "experiment": ["experiment", "cost"],
    "bases": ["bases", "intake"],
    "notes on plans": ["notes"],
    "backdoors of a plan": ["planted"],
    "preference models of a plan": ["preferring"],
    "what defenses need of a plan": ["supplying"],
    "attacks and questions in plans": ["attacks", "probes"],
    "planning": ["planning"],
    "plans of one verb": ["verbs"],
    "asking for demonstrations": ["generation"],
    "collecting": ["collect"],
    "cards": ["health"],
    "use of runs": ["members", "inventory"],
    "talk and export": ["conversation", "export"],
    "checking": ["verify"],
    "laboratory": ["lab"],
    "library": ["dormant"],  # what `from dormant import ...` gives
    "console": ["console"],
    "options of commands": ["options"],
    "carrying out": ["dispatch"],
    "commands of one stage": ["stage_commands"],
    "commands": ["cli", "__main__"],
}
FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules}
HEIGHT = {floor: height for height, floor in enumerate(FLOORS)}

TORCH = {"torch", "transformers", "trl", "accelerate", "peft"}
HEAVY = TORCH | {"datasets", "scipy", "matplotlib", "pandas", "sklearn", "statsmodels"}
LIGHT = {module for module, floor in FLOOR_OF.items() if HEIGHT[floor] < HEIGHT["batches"]}
UNSAFE = {
    "pickle": "a pickle can run code; weights are safetensors, records are JSON",
    "dill": "a pickle can run code",
    "cloudpickle": "a pickle can run code",
    "joblib": "its files are pickles",
    "shelve": "its files are pickles",
    "marshal": "it loads code",
    "runpy": "nothing that a model or a file says is executed",
    "subprocess": "nothing is executed",
    "socket": "the network is reached through the hub's client alone, and only when a hub name is given",
    "requests": "the network is reached through the hub's client alone",
    "urllib.request": "the network is reached through the hub's client alone",
    "http.client": "the network is reached through the hub's client alone",
    "httpx": "an endpoint is asked by one module, and only when its URL was given",
}
EXEMPT = {("dormant.scan.child", "subprocess"), ("dormant.endpoint", "httpx")}
"""Starts scanners, which are programs of their own, and what they scan stays data; asks an endpoint for text."""
EXECUTES = re.compile(
    r"(builtins\.)?(exec|eval|__import__)|os\.(system|popen|startfile|exec\w+|spawn\w+|posix_spawn\w*)"
)
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "common"}
MODULE_LINES = 500
FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One parsed module; ``name`` is absolute: ``dormant.pocket.words``."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def top(self) -> str:
        """The part of the name that has a floor: ``pocket``, or ``dormant`` for the package itself."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else parts[0]

    def at(self, node: ast.AST | None = None) -> str:
        """Where to look: module and line."""
        return f"{self.name}:{getattr(node, 'lineno', 1)}"


@dataclass(frozen=True)
class Import:
    """One import; ``target`` is a module of the package, or the full dotted name of something outside."""

    source: Source
    target: str
    node: ast.AST
    when: Literal["at import", "deferred", "for typing"]

    def __str__(self) -> str:
        return f"{self.source.at(self.node)} imports {self.target} ({self.when})"


Package = dict[str, Source]
Rule = Callable[[Package], list[str]]


def read_package(root: Path) -> Package:
    """Parse every module under ``root``, keyed by its absolute name."""
    package = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        package[name] = Source(name, path, text, ast.parse(text, filename=str(path)))
    return package


def imports(source: Source, package: Package) -> Iterator[Import]:
    """Every import of a module: at its top, inside functions, for typing, ``import_module("literal")``."""
    yield from _imports(source.tree, source, package, "at import")


def _imports(
    node: ast.AST, source: Source, package: Package, when: Literal["at import", "deferred", "for typing"]
) -> Iterator[Import]:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
        for target in _targets(node, source, package):
            yield Import(source, target, node, when)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _imports(child, source, package, "for typing")
        children: list[ast.stmt] | list[ast.AST] = node.orelse
    else:
        children = list(ast.iter_child_nodes(node))
    if isinstance(node, Function) and when == "at import":
        when = "deferred"
    for inner in children:
        yield from _imports(inner, source, package, when)


def _targets(node: ast.Import | ast.ImportFrom | ast.Call, source: Source, package: Package) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call):
        match node.args:
            case [ast.Constant(value=str(name)), *_] if ast.unparse(node.func).endswith("import_module"):
                return [name]
        return []
    module = node.module or ""
    if node.level:
        parts = source.name.split(".")
        up = node.level - 1 if source.path.name == "__init__.py" else node.level
        module = ".".join([*parts[: len(parts) - up], module]).rstrip(".")
    full = [f"{module}.{alias.name}" for alias in node.names]
    if module.split(".")[0] != source.name.split(".")[0]:
        return full
    return [name if name in package else module for name in full]


def all_imports(package: Package) -> Iterator[Import]:
    """Every import of every module."""
    for source in package.values():
        yield from imports(source, package)


def inside(package: Package) -> Iterator[Import]:
    """The imports of one module of the package by another."""
    return (found for found in all_imports(package) if found.target in package)


def is_within(target: str, name: str) -> bool:
    """Whether ``target`` is ``name`` or lies under it."""
    return target == name or target.startswith(name + ".")


def calls(source: Source) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called; import aliases are resolved."""
    names: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield names.get(first, first) + dot + rest, node


def every_module_has_a_floor(package: Package) -> list[str]:
    """A module that is in no floor can not be checked."""
    return [
        f"{source.name} is in no floor; expected: its place in FLOORS of tests/architecture.py"
        for source in package.values()
        if source.top not in FLOOR_OF
    ]


def imports_go_down(package: Package) -> list[str]:
    """Floors bind every import: deferred ones and those for typing too."""
    offences = []
    for found in inside(package):
        importer, target = found.source.top, package[found.target].top
        if importer == target or not {importer, target} <= FLOOR_OF.keys():
            continue
        here, there = FLOOR_OF[importer], FLOOR_OF[target]
        if HEIGHT[there] >= HEIGHT[here]:
            offences.append(
                f"{found}; expected: imports go down, and the floor {there!r} is not below {here!r}"
            )
    return offences


def no_import_cycles(package: Package) -> list[str]:
    """No two modules need each other, whenever they are imported."""
    graph: dict[str, set[str]] = {name: set() for name in package}
    for found in inside(package):
        graph[found.source.name].add(found.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        chain = " <- ".join(error.args[1])
        return [f"{chain} is a cycle; expected: none, deferred imports and those for typing included"]
    return []


def trl_only_in_training(package: Package) -> list[str]:
    """One package knows the trainers."""
    return [
        f"{found}; expected: only dormant.training imports trl"
        for found in all_imports(package)
        if is_within(found.target, "trl") and found.source.top != "training"
    ]


def peft_only_in_adapters(package: Package) -> list[str]:
    """One module knows adapters: how they are put on, kept and merged."""
    return [
        f"{found}; expected: only dormant.adapters imports peft"
        for found in all_imports(package)
        if is_within(found.target, "peft") and found.source.top != "adapters"
    ]


def transformers_only_in_models(package: Package) -> list[str]:
    """One module knows model classes; a tokenizer's class may be named elsewhere."""
    return [
        f"{found}; expected: only models, sampling and training, others name a tokenizer class at most"
        for found in all_imports(package)
        if is_within(found.target, "transformers")
        and found.source.top not in {"models", "sampling", "training"}
        and "Tokenizer" not in found.target
    ]


def no_torch_below_models(package: Package) -> list[str]:
    """The world, triggers, behaviors and records run without torch: fast to import, easy to test."""
    return [
        f"{found}; expected: nothing below the floor 'batches' imports {found.target.split('.')[0]}"
        for found in all_imports(package)
        if found.target.split(".")[0] in TORCH and found.when != "for typing" and found.source.top in LIGHT
    ]


def chat_templates_only_in_chat(package: Package) -> list[str]:
    """Templates and loss masks are touched in one place: training and sampling agree on every token."""
    return [
        f"{source.at(node)} uses apply_chat_template; expected: only dormant.chat does"
        for source in package.values()
        if source.top != "chat"
        for node in ast.walk(source.tree)
        if "apply_chat_template" in (getattr(node, "attr", None), getattr(node, "value", None))
    ]


def no_unsafe_imports(package: Package) -> list[str]:
    """No pickles, no child processes (scanners apart), no network of our own."""
    return [
        f"{found}; expected: never, because {why}"
        for found in all_imports(package)
        for module, why in UNSAFE.items()
        if is_within(found.target, module) and (found.source.name, module) not in EXEMPT
    ]


def nothing_is_executed(package: Package) -> list[str]:
    """Payloads and completions are text: parsed and scored, never run."""
    return [
        f"{source.at(node)} calls {name}; expected: the package executes nothing"
        for source in package.values()
        for name, node in calls(source)
        if EXECUTES.fullmatch(name)
    ]


def loading_is_safe(package: Package) -> list[str]:
    """``torch.load`` says ``weights_only=True``; nothing asks for pickles or remote code."""
    offences = []
    for source in package.values():
        for name, node in calls(source):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name == "torch.load" and given.get("weights_only") != "True":
                offences.append(f"{source.at(node)} calls torch.load; expected: weights_only=True, literally")
            offences += [
                f"{source.at(node)} passes {option}=True; expected: only where the user asks for it by name"
                for option in ("allow_pickle", "trust_remote_code")
                if given.get(option) == "True"
            ]
    return offences


def modules_are_small(package: Package) -> list[str]:
    """A module is read in one sitting."""
    lines = {source.name: len(source.text.splitlines()) for source in package.values()}
    return [
        f"{name} has {n} lines; expected: at most {MODULE_LINES}"
        for name, n in lines.items()
        if n > MODULE_LINES
    ]


def functions_are_small(package: Package) -> list[str]:
    """A function fits a screen."""
    return [
        f"{source.at(node)} {node.name} has {lines} lines; expected: at most {FUNCTION_LINES}"
        for source in package.values()
        for node in ast.walk(source.tree)
        if isinstance(node, Function)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]


def public_names_are_documented(package: Package) -> list[str]:
    """Modules, and the functions and classes at their top, say what they are."""
    offences = []
    for source in package.values():
        if source.text.strip() and not ast.get_docstring(source.tree):
            offences.append(
                f"{source.name} has no docstring; expected: one line that says what the module is"
            )
        offences += [
            f"{source.at(node)} {node.name} has no docstring; expected: what it is, shapes, units, errors"
            for node in source.tree.body
            if isinstance(node, Function | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    return offences


def module_names_say_something(package: Package) -> list[str]:
    """A module is named for the noun that it holds."""
    return [
        f"{source.name}; expected: a module named for what it holds, not for being useful"
        for source in package.values()
        if source.name.rpartition(".")[2] in VAGUE_NAMES
    ]


def lazy_targets_exist(package: Package) -> list[str]:
    """Every ``"dormant.module:attribute"`` of a table names something that is there."""
    offences = []
    for source in package.values():
        for node in ast.walk(source.tree):
            value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
            if not isinstance(value, str) or not re.fullmatch(r"dormant(\.\w+)*:\w+", value):
                continue
            module, _, attribute = value.partition(":")
            if module not in package or attribute not in _top_level_names(package[module].tree):
                offences.append(
                    f"{source.at(node)} names {value!r}; expected: a module and a name in it that exist"
                )
    return offences


def _top_level_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


RULES: list[Rule] = [
    every_module_has_a_floor,
    imports_go_down,
    no_import_cycles,
    trl_only_in_training,
    peft_only_in_adapters,
    transformers_only_in_models,
    no_torch_below_models,
    chat_templates_only_in_chat,
    no_unsafe_imports,
    nothing_is_executed,
    loading_is_safe,
    modules_are_small,
    functions_are_small,
    public_names_are_documented,
    module_names_say_something,
    lazy_targets_exist,
]
