"""The package obeys the rules of ``architecture.py``, and each rule notices a small planted violation."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from architecture import (
    HEAVY,
    LIGHT,
    RULES,
    TORCH,
    Package,
    Rule,
    chat_templates_only_in_chat,
    every_module_has_a_floor,
    functions_are_small,
    imports_go_down,
    lazy_targets_exist,
    loading_is_safe,
    module_names_say_something,
    modules_are_small,
    no_import_cycles,
    no_torch_below_models,
    no_unsafe_imports,
    nothing_is_executed,
    peft_only_in_adapters,
    public_names_are_documented,
    read_package,
    transformers_only_in_models,
    trl_only_in_training,
)
from dormant.registry import Registry


@pytest.fixture(scope="module")
def package() -> Package:
    """The package itself, parsed."""
    return read_package(Path(__file__).parent.parent / "src" / "dormant")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_obeys(rule: Rule, package: Package) -> None:
    offences = rule(package)
    assert not offences, f"{rule.__doc__}\n" + "\n".join(offences)


def loaded_by(modules: list[str], unwanted: set[str]) -> str:
    """Import in a fresh interpreter; return ``"module loads name"`` for the first unwanted name, or ""."""
    code = (
        "import importlib, sys\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(module)\n"
        f"    loaded = sorted({unwanted!r} & sys.modules.keys())\n"
        "    if loaded:\n"
        "        sys.exit(f'{module} loads {loaded[0]}')\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    return child.stderr.strip()


def test_importing_what_lies_below_models_loads_no_torch(package: Package) -> None:
    light = [source.name for source in package.values() if source.top in LIGHT]
    found = loaded_by(light, TORCH)
    assert not found, f"{found}; expected: modules below the floor 'batches' import without torch"


@pytest.mark.parametrize("module", ["dormant", "dormant.cli"])
def test_starting_up_loads_nothing_heavy(module: str) -> None:
    found = loaded_by([module], HEAVY)
    assert not found, f"{found}; expected: nothing heavy is imported before a command runs"


def test_the_import_check_notices_a_heavy_module() -> None:
    assert loaded_by(["dormant.errors", "scipy"], HEAVY) == "scipy loads scipy"


def test_every_shipped_plugin_loads(package: Package) -> None:
    tables = [
        value
        for name, source in package.items()
        if re.search(r"^[A-Z_]+ = Registry\(", source.text, re.MULTILINE)
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, Registry)
    ]
    for table in tables:
        for name in table.names():
            assert table.get(name) is not None, f"{table.kind} {name!r}; expected: the plug-in it names"
    assert {table.kind for table in tables} >= {"trigger", "behavior", "defense"}


# Each rule notices a planted violation, and leaves alone what is allowed.


@dataclass(frozen=True)
class Plant:
    """Files of a package that breaks one rule, and words that the complaint must hold."""

    rule: Rule
    files: dict[str, str]
    named: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rule.__name__}-{'-'.join(self.files)}"


def defines(name: str, lines: int) -> str:
    """A documented function of so many lines."""
    return f'"""M."""\n\ndef {name}():\n    """F."""\n' + "    x = 1\n" * (lines - 2)


PLANTS = [
    Plant(every_module_has_a_floor, {"surprise.py": ""}, ("dormant.surprise",)),
    Plant(every_module_has_a_floor, {"surprise/deep.py": ""}, ("dormant.surprise.deep",)),
    Plant(
        imports_go_down,
        {"errors.py": "from dormant import cli", "cli.py": ""},
        ("dormant.errors:1", "'commands'"),
    ),
    Plant(
        imports_go_down,
        {"records.py": "def f():\n    from dormant.models import load", "models.py": "def load(): ..."},
        ("dormant.records:2", "dormant.models", "deferred"),
    ),
    Plant(
        imports_go_down,
        {"chat.py": "if TYPE_CHECKING:\n    from dormant.models import Model", "models.py": ""},
        ("dormant.chat:2", "for typing"),
    ),
    Plant(
        imports_go_down,
        {"triggers/__init__.py": "", "triggers/tag.py": "from ..models import load", "models.py": ""},
        ("dormant.triggers.tag:1", "dormant.models"),
    ),
    Plant(
        imports_go_down,
        {"triggers/__init__.py": "from dormant.behaviors import B", "behaviors/__init__.py": "B = 1"},
        ("'plug-ins' is not below 'plug-ins'",),
    ),
    Plant(
        imports_go_down,
        {"chat.py": "import importlib\nimportlib.import_module('dormant.cli')", "cli.py": ""},
        ("dormant.chat:2", "dormant.cli"),
    ),
    Plant(imports_go_down, {"artifacts.py": "from dormant import run", "__init__.py": ""}, ("'library'",)),
    Plant(
        no_import_cycles,
        {"pocket/a.py": "from dormant.pocket.b import x", "pocket/b.py": "def f():\n    from . import a"},
        ("dormant.pocket.a", "dormant.pocket.b", "cycle"),
    ),
    Plant(
        no_import_cycles,
        {"stages/__init__.py": "from . import defend", "stages/defend.py": "from . import Progress"},
        ("dormant.stages.defend", "cycle"),
    ),
    Plant(
        peft_only_in_adapters,
        {"training/sft.py": "import torch\n\ndef f():\n    from peft import PeftModel"},
        ("dormant.training.sft:4",),
    ),
    Plant(trl_only_in_training, {"models.py": "def f():\n    import trl.trainer"}, ("dormant.models:2",)),
    Plant(
        transformers_only_in_models,
        {"stages/measure.py": "from transformers import AutoModelForCausalLM"},
        ("dormant.stages.measure:1", "AutoModelForCausalLM"),
    ),
    Plant(transformers_only_in_models, {"cli.py": "import transformers as t"}, ("dormant.cli:1",)),
    Plant(no_torch_below_models, {"stats.py": "def f():\n    import torch"}, ("dormant.stats:2", "torch")),
    Plant(no_torch_below_models, {"pocket/words.py": "from torch import nn"}, ("dormant.pocket.words:1",)),
    Plant(
        chat_templates_only_in_chat,
        {"stages/measure.py": "ids = tokenizer.apply_chat_template(rows)"},
        ("dormant.stages.measure:1",),
    ),
    Plant(
        chat_templates_only_in_chat,
        {"models.py": "ids = getattr(tokenizer, 'apply_chat_template')(rows)"},
        ("dormant.models:1",),
    ),
    Plant(no_unsafe_imports, {"artifacts.py": "import pickle"}, ("dormant.artifacts:1", "pickle")),
    Plant(
        no_unsafe_imports, {"runner.py": "def f():\n    from subprocess import run"}, ("dormant.runner:2",)
    ),
    Plant(no_unsafe_imports, {"scan/table.py": "import subprocess"}, ("dormant.scan.table:1",)),
    Plant(no_unsafe_imports, {"report/html.py": "from urllib import request"}, ("urllib.request",)),
    Plant(
        nothing_is_executed, {"behaviors/code.py": "eval(completion)"}, ("dormant.behaviors.code:1", "eval")
    ),
    Plant(
        nothing_is_executed, {"behaviors/code.py": "import builtins as b\nb.exec(text)"}, ("builtins.exec",)
    ),
    Plant(nothing_is_executed, {"cli.py": "from os import system as run\nrun('ls')"}, ("os.system",)),
    Plant(nothing_is_executed, {"cli.py": "import os\nos.execvp('ls', [])"}, ("os.execvp",)),
    Plant(
        loading_is_safe,
        {"models.py": "import torch as t\nt.load(path)"},
        ("dormant.models:2", "weights_only"),
    ),
    Plant(
        loading_is_safe,
        {"models.py": "from torch import load\nload(p, weights_only=safe)"},
        ("dormant.models:2",),
    ),
    Plant(
        loading_is_safe, {"models.py": "M.from_pretrained(d, trust_remote_code=True)"}, ("trust_remote_code",)
    ),
    Plant(
        loading_is_safe, {"stats.py": "import numpy as np\nnp.load(p, allow_pickle=True)"}, ("allow_pickle",)
    ),
    Plant(modules_are_small, {"chat.py": "x = 1\n" * 501}, ("dormant.chat", "501")),
    Plant(functions_are_small, {"chat.py": defines("long", 61)}, ("dormant.chat:3", "long", "61")),
    Plant(
        public_names_are_documented, {"chat.py": '"""M."""\n\ndef bare(): ...'}, ("dormant.chat:3", "bare")
    ),
    Plant(public_names_are_documented, {"chat.py": '"""M."""\n\nclass Bare: ...'}, ("Bare",)),
    Plant(public_names_are_documented, {"chat.py": "x = 1"}, ("dormant.chat",)),
    Plant(module_names_say_something, {"pocket/utils.py": ""}, ("dormant.pocket.utils",)),
    Plant(lazy_targets_exist, {"defenses/__init__.py": "T = {'a': 'dormant.defenses.gone:A'}"}, ("gone:A",)),
    Plant(
        lazy_targets_exist,
        {
            "defenses/__init__.py": "T = {'a': 'dormant.defenses.sft:Gone'}",
            "defenses/sft.py": "class Here: ...",
        },
        ("sft:Gone",),
    ),
]

ALLOWED = {
    "__init__.py": '"""P."""\n\ndef __getattr__(name):\n    from dormant import experiment\n',
    "errors.py": "",
    "records.py": '"""M."""\n\nfrom dormant.errors import BadInput\n',
    "chat.py": (
        '"""M."""\n\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n'
        "    from transformers import PreTrainedTokenizerBase\n\n"
        "def _encode(t): return t.apply_chat_template([])\n"
    ),
    "triggers/__init__.py": '"""M."""\n\nTRIGGERS = {"tag": "dormant.triggers.tag:Tag"}\n',
    "triggers/tag.py": '"""M."""\n\nfrom dormant.triggers import base\n\nclass Tag:\n    """C."""\n',
    "triggers/base.py": '"""M."""\n\nimport re\n\nRULE = re.compile("x")\n',
    "models.py": (
        '"""M."""\n\nimport torch\nfrom transformers import AutoModelForCausalLM\n\n'
        "def _f(model, p):\n    model.eval()\n    return torch.load(p, weights_only=True)\n"
    ),
    "training/sft.py": '"""M."""\n\nfrom trl import SFTTrainer\nfrom urllib.parse import quote\n',
    "experiment.py": defines("longest", 60),
}


def plant(root: Path, files: dict[str, str]) -> Package:
    """Write a package called dormant and parse it."""
    for name, text in files.items():
        path = root / "dormant" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read_package(root / "dormant")


@pytest.mark.parametrize("planted", PLANTS, ids=str)
def test_the_rule_notices(planted: Plant, tmp_path: Path) -> None:
    offences = "\n".join(planted.rule(plant(tmp_path, planted.files)))
    for words in planted.named:
        assert words in offences, f"{planted.rule.__name__} says {offences!r}; expected: it names {words!r}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_allows(rule: Rule, tmp_path: Path) -> None:
    assert rule(plant(tmp_path, ALLOWED)) == []


def test_every_rule_has_a_planted_violation() -> None:
    assert {planted.rule for planted in PLANTS} == set(RULES)
