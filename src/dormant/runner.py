"""Run a plan: build what is missing, reuse what is there, leave a run directory that explains itself."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from filelock import FileLock, Timeout
from pydantic import BaseModel, Field, ValidationError, model_validator

from dormant import artifacts, stages
from dormant.artifacts import Identity, Manifest, Store
from dormant.errors import BadInput
from dormant.gates import Thresholds
from dormant.records import Dose, ResultKey, canonical
from dormant.stages.configs import Backdoor, Config, MeasureConfig
from dormant.stages.plugins import plugin_modules
from dormant.workers import Job, Watch, make_all, processes

PLAN = "plan.json"


@dataclass(frozen=True)
class External:
    """An input that no stage made: a base model's directory, a data file.  Its id is the hash of its bytes."""

    path: Path
    origin: str = ""
    """Where it came from, if a path does not say: a hub name with its commit."""

    @cached_property
    def id(self) -> str:
        """Hash of the bytes."""
        return artifacts.external_id(self.path)


@dataclass(frozen=True)
class Output:
    """A part (a directory, or "" for the whole) of what a call makes."""

    call: str
    part: str = ""


@dataclass(frozen=True)
class Call:
    """One stage call of a plan."""

    name: str
    stage: str
    config: Config
    seed: int
    inputs: Mapping[str, External | Output]
    final: str = ""
    """The part that stays when intermediate checkpoints go."""
    key: ResultKey | None = None
    """For ``measure``: which cell of the results table the numbers belong to."""


def identify(call: Call, known: Mapping[str, Identity]) -> Identity:
    """What decides a call's artifact; ``known`` holds the identities of the calls that it reads."""

    def input_id(given: External | Output) -> str:
        return given.id if isinstance(given, External) else f"{known[given.call].id}/{given.part}"

    return Identity(
        stage=call.stage,
        source=artifacts.source_hash(
            stages.STAGES[call.stage], *_together(call), *plugin_modules(call.config)
        ),
        config=call.config.deciding(),
        seed=call.seed,
        inputs={name: input_id(given) for name, given in call.inputs.items()},
    )


def _together(call: Call) -> tuple[str, ...]:
    """The module that starts several processes on one stage, which decides what they are told of each other."""
    runtime = getattr(call.config, "runtime", None)
    return ("dormant.workers",) if runtime is not None and runtime.processes > 1 else ()


@dataclass(frozen=True)
class Plan:
    """Stage calls in an order in which they can run, and the spec that they came from."""

    calls: Sequence[Call]
    spec: Mapping[str, Any]
    keep: str = "final"
    exposed: Mapping[str, str] = field(default_factory=dict)
    """Plain names in the run directory for the final models of calls: ``{"organism": call}``."""
    notes: Sequence[str] = ()
    """What the user should know before it runs."""
    identities: dict[str, Identity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for call in self.calls:
            self.identities[call.name] = identify(call, self.identities)

    def describe(self) -> list[dict[str, Any]]:
        """The plan as data, without paths: what ``plan.json`` holds."""
        return [
            {
                "name": call.name,
                "stage": call.stage,
                "directory": self.identities[call.name].directory,
                "id": self.identities[call.name].id,
                "seed": call.seed,
                "config": call.config.deciding(),
                "inputs": {name: _describe_input(given) for name, given in call.inputs.items()},
                "key": call.key.model_dump(mode="json") if call.key else None,
            }
            for call in self.calls
        ]


class Observer(Watch, Protocol):
    """Is told how a run goes on: what starts, how far it is, what is done."""

    def begin(self, plan: Plan, todo: Sequence[Call]) -> None:
        """A run starts: ``todo`` has to be made, the rest is there."""

    def warn(self, line: str) -> None:
        """Something the user should know."""


class Quiet:
    """An observer that says nothing but warnings."""

    def begin(self, plan: Plan, todo: Sequence[Call]) -> None:
        """Say nothing."""

    def start(self, name: str) -> None:
        """Say nothing."""

    def progress(self, name: str, done: int, total: int) -> None:
        """Say nothing."""

    def finish(self, name: str, seconds: float) -> None:
        """Say nothing."""

    def warn(self, line: str) -> None:
        """Pass the line on as a Python warning."""
        warnings.warn(line, stacklevel=2)


def _describe_input(given: External | Output) -> dict[str, str]:
    if isinstance(given, External):
        return {"id": given.id, **({"origin": given.origin} if given.origin else {})}
    return {"call": given.call, "part": given.part}


class Run:
    """A run directory with a plan."""

    def __init__(self, plan: Plan, directory: Path, store: Store) -> None:
        self.plan = plan
        self.directory = directory
        self.store = store

    def artifact(self, call: str) -> Path:
        """Where the artifact of a call lies in this run."""
        return self.directory / "artifacts" / self.plan.identities[call].directory

    def todo(self) -> list[Call]:
        """The calls that have to be made: each that is missing, or lacks a part that a missing one needs."""
        reusable = self._reusable()
        return [call for call in self.plan.calls if call.name not in reusable]

    def execute(
        self,
        observer: Observer,
        *,
        fresh: bool = False,
        workers: int = 1,
        check: Callable[[Sequence[Call]], None] = lambda todo: None,
    ) -> list[str]:
        """Make every missing artifact, then drop intermediate checkpoints unless the plan keeps all.

        Args:
            observer: is told how it goes on.
            fresh: make everything again.
            workers: how many processes work side by side; 1 is this one.
            check: is given what has to be made, and may refuse it before anything is written.

        Returns the names of the calls that were made.

        Raises:
            BadInput: the directory holds something else, is in use, or can not be written.
        """
        with self._claimed(), artifacts.writing(self.directory):
            reusable = {} if fresh else self._reusable()
            todo = [call for call in self.plan.calls if call.name not in reusable]
            check(todo)
            self._write_plan()
            self._take(reusable)
            observer.begin(self.plan, todo)
            for line in self.plan.notes:
                observer.warn(line)
            self._warn_versions(todo, observer)
            together = max((processes(call.config) for call in todo), default=1)
            if together > 1 and workers > 1:
                observer.warn(f"stages run one at a time: each of them trains in {together} processes")
                workers = 1
            jobs = [self._job(call, fresh=fresh) for call in todo]
            make_all(jobs, {call.name: self._needs(call, todo) for call in todo}, workers, observer)
            self._expose()
            if self.plan.keep == "final":
                self._drop_intermediate()
            self._prune()
        return [call.name for call in todo]

    def _reusable(self) -> dict[str, Path]:
        """Where the artifact of each call lies that need not be made: in this run, or in the store."""
        needed = {call.name: {call.final} for call in self.plan.calls}
        if self.plan.keep == "all":
            for call in self.plan.calls:
                needed[call.name] |= {stages.step_directory(step) for step in _steps(call)}
        found = {}
        for call in reversed(self.plan.calls):
            intact = self._intact(call, needed[call.name])
            if intact is not None:
                found[call.name] = intact
                continue
            for given in call.inputs.values():
                if isinstance(given, Output):
                    needed[given.call].add(given.part)
        return found

    def _intact(self, call: Call, parts: set[str]) -> Path | None:
        """Where an undamaged artifact with these parts lies, if anywhere."""
        for source in (self.artifact(call.name), self.store.path(self.plan.identities[call.name])):
            manifest = artifacts.readable(source)
            if manifest and all(manifest.has(part) for part in parts) and not artifacts.check(source):
                return source
        return None

    def _take(self, reusable: Mapping[str, Path]) -> None:
        """Link into this run what is reused from the store."""
        for name, source in reusable.items():
            target = self.artifact(name)
            if source != target:
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    artifacts.link(source, target)
                except FileNotFoundError:
                    raise BadInput(
                        f"{source} was deleted just now, perhaps by `dormant gc`; start the same command again"
                    ) from None

    def _job(self, call: Call, *, fresh: bool) -> Job:
        return Job(
            name=call.name,
            stage=call.stage,
            config=call.config,
            seed=call.seed,
            inputs={name: self._input(given) for name, given in call.inputs.items()},
            identity=self.plan.identities[call.name],
            store=self.store.root,
            target=self.artifact(call.name),
            fresh=fresh,
        )

    def _needs(self, call: Call, todo: Sequence[Call]) -> set[str]:
        """The calls to be made whose artifacts this one reads."""
        names = {other.name for other in todo}
        return {given.call for given in call.inputs.values() if isinstance(given, Output)} & names

    def _input(self, given: External | Output) -> Path:
        return given.path if isinstance(given, External) else self.artifact(given.call) / given.part

    def _drop_intermediate(self) -> None:
        for call in self.plan.calls:
            parts = [part for part in map(stages.step_directory, _steps(call)) if part != call.final]
            manifest = Manifest.read(self.artifact(call.name))
            if parts and manifest and not set(parts) <= set(manifest.dropped):
                artifacts.drop(self.artifact(call.name), parts)
                self.store.drop(self.plan.identities[call.name], parts)

    def _expose(self) -> None:
        """Give models their plain names: hard links, no copies."""
        for name, call in self.plan.exposed.items():
            artifacts.link(self.artifact(call) / self._final(call), self.directory / name)

    def _final(self, name: str) -> str:
        return next(call.final for call in self.plan.calls if call.name == name)

    def _prune(self) -> None:
        """Remove artifacts of an older version of this plan; the store still has them."""
        wanted = {identity.directory for identity in self.plan.identities.values()}
        for path in (self.directory / "artifacts").iterdir():
            if path.name not in wanted:
                shutil.rmtree(path)

    def _warn_versions(self, todo: Sequence[Call], observer: Observer) -> None:
        now, making = artifacts.versions(), {call.name for call in todo}
        for call in self.plan.calls:
            manifest = None if call.name in making else Manifest.read(self.artifact(call.name))
            if manifest is not None and manifest.versions != now:
                observer.warn(
                    f"some artifacts were made with other library versions ({call.name}: {manifest.versions}); "
                    "--fresh makes them again"
                )
                return

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Hold the run directory, and refuse one that holds something else."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{self.directory} can not be made: {error.strerror}") from None
        self._refuse_foreign()
        lock = FileLock(self.directory / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BadInput(
                f"another process is running in {self.directory}; wait for it or choose --out"
            ) from None
        except OSError as error:
            raise BadInput(f"{self.directory} can not be written: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    def _write_plan(self) -> None:
        plan = {
            "schema": 1,
            "spec": self.plan.spec,
            "keep": self.plan.keep,
            "notes": list(self.plan.notes),
            "calls": self.plan.describe(),
            "exposed": {
                name: {"call": call, "part": self._final(call)} for name, call in self.plan.exposed.items()
            },
        }
        artifacts.write_atomic(self.directory / PLAN, canonical(plan) + "\n")

    def _refuse_foreign(self) -> None:
        path = self.directory / PLAN
        if path.is_file():
            found = _plan_file(self.directory)["spec"]
            changed = sorted(
                name for name in {*found, *self.plan.spec} if found.get(name) != self.plan.spec.get(name)
            )
            if changed:
                raise BadInput(
                    f"{self.directory} is another run (it differs in {', '.join(changed)}); choose another --out"
                )
        elif any(entry.name != ".lock" for entry in self.directory.iterdir()):
            raise BadInput(f"{self.directory} is not empty and is no run; choose another --out")


def _steps(call: Call) -> tuple[int, ...]:
    steps: tuple[int, ...] = getattr(call.config, "at_steps", ())
    return steps


class _Defended(BaseModel):
    name: str
    doses: list[Dose]
    headline: int


class _Asked(BaseModel):
    """What is read of a spec in a plan."""

    backdoor: Backdoor
    gates: Thresholds = Thresholds()
    defenses: list[_Defended] = []


class _Given(BaseModel):
    id: str = ""
    call: str = ""
    part: str = ""


class _Written(BaseModel):
    """What is read of any call in a plan."""

    name: str
    id: str
    directory: str
    seed: int
    inputs: dict[str, _Given]


class _Supply(_Written):
    stage: Literal["supply", "pairs", "attack"]
    config: dict[str, Any]
    key: None


class _Dosed(BaseModel):
    dose: Dose


class _Trained(_Written):
    stage: Literal["pretrain", "prefer", "implant", "defend"]
    config: _Dosed
    key: None


class _Measured(_Written):
    stage: Literal["measure"]
    config: MeasureConfig
    key: ResultKey


class _PlanFile(BaseModel):
    """What is read of ``plan.json``: more may stand there."""

    spec: _Asked
    calls: list[Annotated[_Supply | _Trained | _Measured, Field(discriminator="stage")]]
    exposed: dict[str, _Given] = {}

    @model_validator(mode="after")
    def _names_exist(self) -> _PlanFile:
        names = {call.name for call in self.calls}
        for call in self.calls:
            if call.key and "model" not in call.inputs:
                raise ValueError(f"{call.name} has no model")
        given = [given for call in self.calls for given in call.inputs.values()]
        for name in (found.call for found in [*given, *self.exposed.values()]):
            if name and name not in names:
                raise ValueError(f"no call is named {name!r}")
        return self


def read_plan(directory: Path) -> dict[str, Any]:
    """Read the plan of a run directory.  Raises BadInput where there is none, or not what a run writes."""
    plan = _plan_file(directory)
    try:
        _PlanFile.model_validate(plan)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        line = f"{directory / PLAN} is no plan ({place}: {first['msg']}); the run has to be made again"
        raise BadInput(line) from None
    return plan


def _plan_file(directory: Path) -> dict[str, Any]:
    """The plan as it stands there: of another version, or of a script's own plan, it is still a plan to compare."""
    path = directory / PLAN
    if not path.is_file():
        raise BadInput(f"{directory} is no run directory: it has no {PLAN}")
    try:
        plan: dict[str, Any] = next(artifacts.read_jsonl(path))
    except (ValueError, StopIteration):
        raise BadInput(f"{path} is not JSON; the run has to be made again") from None
    if not isinstance(plan, dict) or not isinstance(plan.get("spec"), dict) or "calls" not in plan:
        raise BadInput(f"{path} is no plan: it has no spec or no calls; the run has to be made again")
    return plan
