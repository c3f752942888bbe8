"""Reads a run directory, and nothing else: ``run.json``, results, gates, verdicts, completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dormant.errors import BadInput, Corrupt
from dormant.records import VERDICTS, Dose, Result, ResultKey
from dormant.stages.configs import OWN_KINDS

M = TypeVar("M", bound=BaseModel)
BEHAVIOR = ("shown", "paper_mean", "parses")
"""How the names of metrics of the behavior begin, and of what it is shown in."""
Number = tuple[str, str, str]
"""Metric, condition, stratum: which number of a model."""


class Gate(BaseModel):
    """One condition that a number must meet: ``ok`` is None when it could not be judged."""

    model_config = ConfigDict(extra="ignore")

    id: str
    ok: bool | None
    scope: dict[str, Any] = {}
    measured: str = ""
    threshold: str = ""
    message: str = ""


class Verdict(BaseModel):
    """What the protocol says about one defense at one dose, in the card's words."""

    model_config = ConfigDict(extra="ignore")

    defense: str
    dose: Dose
    arm: str = "claim"
    behavior: str | None = None
    trigger: str | None = None
    implant: str | None = None
    seed_implant: int = 0
    seed_defend: int | None = None
    verdict: str
    why: str = ""


class Call(BaseModel):
    """A stage that ran, or was reused."""

    model_config = ConfigDict(extra="ignore")

    name: str
    stage: str = ""
    id: str = ""
    directory: str = ""
    """Of its artifact, in the run's ``artifacts/``."""
    key: ResultKey | None = None
    """Of a measurement: which model it measured."""
    inputs: dict[str, str] = {}
    """The calls that made its inputs, by what they are to it."""
    defense: dict[str, Any] = {}
    """Of a call that trained for safety: its name and options."""
    seconds: float | None = None
    phases: dict[str, float] = {}
    """Seconds of the parts of its making, where they are told apart."""
    reused: bool = False


class Seen(BaseModel):
    """What a checkpoint had been trained on."""

    samples: int = 0
    tokens: int = 0


class Log(BaseModel):
    """``training.json``: what had been seen by each checkpoint, and what was noted of each step, by name."""

    model_config = ConfigDict(extra="ignore")

    seen: dict[int, Seen] = {}
    curves: dict[str, list[float | None]] = {}


class Headline(BaseModel):
    """The dose that the run, or a defense of it, was declared for."""

    model_config = ConfigDict(extra="ignore")

    defense: str
    dose: Dose
    implants: tuple[str, ...] = ()
    """Names of those that are meant; if none is named, all."""
    no_op: str = "no-op"
    """The name of the defense's no-op."""


class Meta(BaseModel):
    """``run.json``: how the run was made and what is missing from it."""

    model_config = ConfigDict(extra="ignore")

    name: str
    status: str = "done"
    dormant: str = ""
    versions: dict[str, str] = {}
    device: str = ""
    threads: int | None = None
    precision: str = ""
    spec: dict[str, Any] = {}
    calls: list[Call] = []
    missing: list[str] = []
    lines: list[str] = []
    headline: Headline | None = None
    headlines: list[Headline] = []
    """That of each defense of the spec."""


class CompletionRow(BaseModel):
    """One completion with what was asked and how it was judged."""

    model_config = ConfigDict(extra="ignore")

    id: str
    task: str
    family: str = ""
    kind: str = ""
    condition: str = ""
    instance: str = ""
    decoding: str = "sample"
    messages: list[dict[str, str]] = Field(default_factory=list)
    completion: str
    finished: bool = True
    scratchpad: dict[str, Any] | None = None
    scores: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass
class Run:
    """A run directory in memory.  A *place* is a ResultKey without condition and stratum: one model."""

    path: Path
    meta: Meta
    gates: list[Gate]
    verdicts: list[Verdict]
    numbers: dict[ResultKey, dict[Number, Result]] = field(default_factory=dict)

    @property
    def planted(self) -> list[tuple[str, str]]:
        """The backdoors that models were asked about, as behavior and trigger, in order of first appearance."""
        return list(dict.fromkeys(place.planted for place in self.numbers))

    def get(
        self, place: ResultKey | None, metric: str, condition: str = "clean", stratum: str = "all"
    ) -> Result | None:
        """Return one number of a model, or None when it was not measured.

        Where the trigger fires on some kinds of tasks only, the untriggered rate of the behavior is that on these.
        """
        if place is None:
            return None
        if stratum == "all" and metric.startswith(BEHAVIOR):
            stratum = self._stratum(place, condition)
        return self.numbers.get(place, {}).get((metric, condition, stratum))

    def _stratum(self, place: ResultKey, condition: str) -> str:
        own = ("shown", condition, OWN_KINDS)
        return OWN_KINDS if own in self.numbers.get(place, {}) else "all"

    @cached_property
    def _calls(self) -> dict[str, Call]:
        return {call.name: call for call in self.meta.calls}

    @cached_property
    def _measurements(self) -> dict[ResultKey, Call]:
        return {call.key: call for call in self.meta.calls if call.key is not None}

    def call(self, name: str) -> Call | None:
        """A finished call by its name."""
        return self._calls.get(name)

    def measured(self, place: ResultKey | None) -> Call | None:
        """The call that measured a model, if it is known."""
        return self._measurements.get(place) if place is not None else None

    def made(self, place: ResultKey | None) -> Call | None:
        """The call that trained a model, if it is known and finished."""
        measured = self.measured(place)
        return self.call(measured.inputs.get("model", "")) if measured else None

    def noted(self, call: Call | None, name: str, model: type[M]) -> M | None:
        """A JSON file of a call's artifact; None where it is not there.

        Raises:
            Corrupt: it does not hold what its stage writes.
        """
        path = self._file(call, name)
        return None if path is None else _parse(model, path.read_text(encoding="utf-8"), path, None)

    def lines(self, call: Call | None, name: str, model: type[M]) -> list[M]:
        """The rows of a JSONL file of a call's artifact; none where it is not there.  Raises as :meth:`noted`."""
        path = self._file(call, name)
        return [] if path is None else [_parse(model, line, path, n) for n, line in _lines(path)]

    def pooled(self, name: str, model: type[M]) -> list[M]:
        """The rows of a JSONL file of the run itself; none where it is not there.  Raises as :meth:`noted`."""
        path = self.path / name
        return [_parse(model, line, path, number) for number, line in _lines(path)]

    def _file(self, call: Call | None, name: str) -> Path | None:
        # A name and no path: what a run says of itself leads nowhere else.
        if call is None or not call.directory or Path(call.directory).name != call.directory:
            return None
        path = self.path / "artifacts" / call.directory / name
        return path if path.is_file() else None

    def conditions(self, prefix: str, planted: tuple[str, str] | None = None) -> list[str]:
        """All measured conditions that start with ``prefix``, of one backdoor or of all, in order of appearance."""
        seen = {
            condition: None
            for place, numbers in self.numbers.items()
            for metric, condition, _ in numbers
            if metric == "shown" and condition.startswith(prefix) and planted in (None, place.planted)
        }
        return list(seen)

    def groups(self, place: ResultKey | None, condition: str, field: str) -> dict[str, Result]:
        """The rate of each group of a condition's prompts: by literal ``instance``, or by the ``year`` it says."""
        if place is None:
            return {}
        return {
            stratum.removeprefix(f"{field}:"): result
            for (metric, name, stratum), result in self.numbers.get(place, {}).items()
            if metric == "shown" and name == condition and stratum.startswith(f"{field}:")
        }

    def completions(self, place: ResultKey, condition: str, stratum: str = "all") -> list[CompletionRow]:
        """The sampled completions of a model under a condition; empty when there are none on disk."""
        if stratum == "all":
            stratum = self._stratum(place, condition)
        key = place.model_copy(update={"condition": condition, "stratum": stratum})
        path = self.path / "completions" / f"{key.cell}.jsonl"
        if not path.is_file():
            return []
        rows = [_parse(CompletionRow, line, path, number) for number, line in _lines(path)]
        return [row for row in rows if row.decoding == "sample"]


def load(run_dir: Path) -> Run:
    """Read a run directory.

    Raises:
        BadInput: there is no ``run.json``.
        Corrupt: a file does not hold what a run writes, or a verdict is not one of a card's words.
    """
    head = run_dir / "run.json"
    if not head.is_file():
        raise BadInput(
            f"{run_dir} is not a run: it has no run.json; give the --out directory of `dormant run`"
        )
    meta = _parse(Meta, head.read_text(encoding="utf-8"), head, None)
    gates_path, verdicts_path = run_dir / "gates.jsonl", run_dir / "verdicts.json"
    gates = [_parse(Gate, line, gates_path, number) for number, line in _lines(gates_path)]
    run = Run(run_dir, meta, gates, _verdicts(verdicts_path))
    results_path = run_dir / "results.jsonl"
    for number, line in _lines(results_path):
        result = _parse(Result, line, results_path, number)
        _refuse_numbers(result, results_path, number)
        place = result.key.model_copy(update={"condition": "", "stratum": "all"})
        index = (result.metric, result.key.condition, result.key.stratum)
        run.numbers.setdefault(place, {})[index] = result
    return run


def _refuse_numbers(result: Result, path: Path, number: int) -> None:
    if result.gates and result.value is not None:
        raise Corrupt(
            f"{path}:{number}: gates {', '.join(result.gates)} failed, yet the value is not null; "
            "rebuild the run's results"
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _parse(model: type[M], text: str, path: Path, number: int | None) -> M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{path}:{number}" if number else str(path)
        field_name = ".".join(str(part) for part in first["loc"])
        raise Corrupt(f"{where}: {field_name + ': ' if field_name else ''}{first['msg']}") from error


def _verdicts(path: Path) -> list[Verdict]:
    if not path.is_file():
        return []
    try:
        rows = [Verdict.model_validate(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise Corrupt(f"{path}: not a list of verdicts ({str(error).splitlines()[0]})") from error
    for row in rows:
        word = row.verdict.partition(":")[0]  # "inconclusive: no twin" is inconclusive
        if word not in VERDICTS:
            raise Corrupt(f"{path}: {row.verdict!r} is not a verdict; valid: {'; '.join(VERDICTS)}")
    return rows
