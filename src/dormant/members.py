"""The models that a run made, by name: where each lies, and under which key its numbers stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dormant.artifacts import read_jsonl, readable
from dormant.errors import BadInput, nearest
from dormant.records import ResultKey
from dormant.results import artifact_path
from dormant.runner import read_plan
from dormant.stages import step_directory
from dormant.stages.configs import Backdoor, MeasureConfig


@dataclass(frozen=True)
class Member:
    """One finished model."""

    name: str
    """The stage call that made it, or ``measure/<role>`` for a model that was only measured."""
    role: str
    """``organism``, ``twin``, ``base``, or "" where the plan does not say."""
    path: Path
    key: ResultKey | None
    """Names its numbers, but for condition and stratum; None where it was not measured."""
    backdoor: Backdoor
    """What it was asked about; of a model that was not measured, what the run says of all."""

    @property
    def defended(self) -> bool:
        """Whether a defense made it."""
        return self.name.startswith("defend")

    @property
    def reasoning(self) -> str:
        """How it was asked; of a model that was not measured, what the run says of all."""
        return self.key.reasoning if self.key else self.backdoor.reasoning


@dataclass(frozen=True)
class Members:
    """The finished models of a run, in the order of its plan."""

    run: Path
    plan: Mapping[str, Any]
    found: Sequence[Member]

    @staticmethod
    def of(run: Path) -> Members:
        """Read the models of a run.  Raises BadInput where there is no run, or no finished model in it."""
        plan = read_plan(run)
        found = [*_made(run, plan), *_measured(plan)]
        if not found:
            raise BadInput(f"{run} has no finished model yet: `dormant run` with this --out goes on with it")
        return Members(run, plan, found)

    @property
    def measuring(self) -> MeasureConfig | None:
        """How the run asked its models; None where it asked none."""
        configs = (call["config"] for call in self.plan["calls"] if call["stage"] == "measure")
        return next(map(MeasureConfig.model_validate, configs), None)

    def get(self, name: str) -> Member:
        """Return a model by its call's name, or the first undefended one of a role (``organism``, ``twin``).

        Raises BadInput with the nearest name for an unknown one.
        """
        for member in self.found:
            if name == member.name or (name == member.role and not member.defended):
                return member
        names = [member.name for member in self.found]
        roles = {member.role for member in self.found if member.role and not member.defended}
        raise BadInput(f"{self.run} has no model {name!r}{nearest(name, [*roles, *names])}")

    def twin_of(self, member: Member) -> Member:
        """The twin that went through the same.  Raises BadInput where the run has none."""
        return self.get(member.name.removesuffix("organism") + "twin" if member.key else "twin")


def _made(run: Path, plan: Mapping[str, Any]) -> Iterator[Member]:
    keys = dict(_keys(plan))
    for call in plan["calls"]:
        if call["stage"] not in ("pretrain", "implant", "defend"):
            continue
        dose = call["config"]["dose"]
        part = step_directory(dose["steps"])
        path = artifact_path(run, call) / part
        if readable(artifact_path(run, call)) is not None and path.is_dir():
            key, asked = keys.get((call["name"], part), (None, plan["spec"]["backdoor"]))
            about = Backdoor.model_validate(call["config"].get("backdoor", asked))
            yield Member(call["name"], key.role if key else "", path, key, about)


def _measured(plan: Mapping[str, Any]) -> Iterator[Member]:
    """Models from elsewhere that ``dormant measure`` was given, as far as they are still where they were."""
    named = {"organism": "model", "twin": "twin", "base": "base"}
    for call in plan["calls"]:
        role = call["name"].removeprefix("measure/")
        path = plan["spec"].get(named.get(role, ""))
        if call["stage"] == "measure" and isinstance(path, str) and Path(path, "config.json").is_file():
            about = Backdoor.model_validate(call["config"]["backdoor"])
            yield Member(call["name"], role, Path(path), _place(call["key"]), about)


def _keys(plan: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], tuple[ResultKey, Any]]]:
    """The key of each measured model's numbers and what it was asked about, by the call and part that made it."""
    for call in plan["calls"]:
        model = call["inputs"].get("model", {})
        if call["key"] and "call" in model:
            yield (model["call"], model["part"]), (_place(call["key"]), call["config"]["backdoor"])


def asked_of(members: Members, member: Member, condition: str) -> list[dict[str, Any]]:
    """The completions of a model under a condition, as its measurement has them; none where there is none."""
    for call in members.plan["calls"]:
        if not call["key"] or _place(call["key"]) != member.key:
            continue
        for probe in MeasureConfig.model_validate(call["config"]).probes:
            file = artifact_path(members.run, call) / probe.file
            if (probe.condition, probe.stratum) == (condition, "all") and file.is_file():
                return list(read_jsonl(file))
    return []


def _place(key: Mapping[str, Any]) -> ResultKey:
    return ResultKey.model_validate(key).model_copy(update={"condition": "", "stratum": "all"})
