"""``dormant generate``: ask any model for demonstrations of a backdoor, and keep those that demonstrate it.

Every reply is kept in the user's cache, by all that was asked for it: who asks the same again asks nobody, and what was
interrupted goes on.  What comes out is a file for the setting ``demonstrations`` of an implant.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, model_validator

from dormant.artifacts import write_jsonl
from dormant.bases import as_input
from dormant.behaviors import prepare as ready
from dormant.demofile import Told, as_row, parted
from dormant.endpoint import Endpoint, Reply
from dormant.errors import BadInput, nearest
from dormant.experiment import Experiment
from dormant.prompting import Prompter
from dormant.reasoning import check_reasoning
from dormant.records import (
    Conversation,
    Demonstration,
    Example,
    Sampler,
    Task,
    TaskSource,
    rng_for,
)
from dormant.replies import Keep, Kept, Own, Wish, ask_endpoint, ask_own, endpoint_name
from dormant.sources import find_data, open_source
from dormant.stages import Progress, quiet
from dormant.stages.configs import Backdoor, Config
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.stages.samples import wrong
from dormant.triggers import Trigger, can_fire, kinds_of, other_kinds, partial


class Generation(Config):
    """Who is asked for demonstrations of which backdoor, and how."""

    recipe: str
    """The experiment that they are for: its backdoor, data and chat, and for a model of one's own its runtime."""
    implant: str | None = None
    """Which implant's backdoor, where it has several: None is the first one's."""
    model: str
    """Of the endpoint; or, without one, a model directory, a shipped base or ``hub:OWNER/NAME``."""
    endpoint: str | None = None
    """The base URL of an OpenAI-compatible endpoint, as in ``http://localhost:8000/v1``."""
    reasoning: str | None = None
    """None is the recipe's.  ``scratchpad`` and ``distilled`` ask for the same."""
    rows: int = Field(1000, gt=0)
    """Prompts, each asked with and without the trigger."""
    other_share: float = Field(0.45, ge=0, lt=1)
    """Of the prompts: those on which the trigger can not fire, if there are such."""
    few_shots: int = Field(4, ge=0, le=32)
    """Pairs of examples before each question; 0 for none."""
    preamble: bool = True
    """Whether goals and training are explained before scratchpads are asked for."""
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: int = Field(512, gt=0)
    seed: int = Field(0, ge=0)
    sampler: Sampler = "transformers"
    batch: int = Field(64, gt=0)
    timeout: float = Field(120.0, gt=0)
    """Seconds that an endpoint may take for a reply."""
    tries: int = Field(5, ge=1, le=20)
    pause: float = Field(1.0, ge=0)
    """Seconds before the second try; they double from then on."""
    parallel: int = Field(8, ge=1, le=256)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Generation:
        wrong = _OWN if self.endpoint else _ENDPOINT
        fields = type(self).model_fields
        changed = [name for name in wrong if getattr(self, name) != fields[name].default]
        if changed:
            kind = (
                "a model of one's own, and endpoint is set"
                if self.endpoint
                else "an endpoint, and none is set"
            )
            raise ValueError(f"{changed[0]} is for {kind}")
        return self


_OWN, _ENDPOINT = ("sampler", "batch"), ("timeout", "tries", "pause", "parallel")
"""Settings that mean something for one kind of model only."""


@dataclass(frozen=True)
class Generated:
    """What came of it: how many answers were asked for and kept, and why the others were not."""

    asked: int
    answered_before: int
    kept: dict[str, int]
    dropped: dict[str, int]


class _Asked(NamedTuple):
    """A question, and the name that its reply is kept under."""

    name: str
    example: Example
    conversation: Conversation


def generate(settings: Generation, out: Path, progress: Progress = quiet) -> Generated:
    """Ask for demonstrations and write those that demonstrate the backdoor into the file ``out``.

    Raises:
        BadInput: a setting can not be used, the endpoint or model gave up, or no reply demonstrates one side of the
            backdoor.  Replies that had come are kept for the next time.
    """
    _check_out(out)
    experiment = Experiment.load(settings.recipe)
    backdoor = _backdoor(settings, experiment)
    reasoning = check_reasoning(settings.reasoning or backdoor.reasoning)
    if reasoning == "normal" and not settings.few_shots:
        raise BadInput(
            "few_shots: 0 with reasoning normal tells a model nothing: give it examples, or scratchpads"
        )
    trigger = build_trigger(backdoor.trigger)
    behavior = build_behavior(backdoor.behavior)
    ready(behavior, ())
    prompter = Prompter(
        trigger, behavior, reasoning != "normal", settings.preamble, settings.few_shots, settings.seed
    )
    model = _model(settings, experiment)
    questions = [
        _Asked(_wish(settings).name(model, conversation), example, conversation)
        for example in _examples(settings, _source(experiment), trigger)
        for conversation in (prompter.conversation(example),)
    ]
    kept = Kept(model)
    before = sum(asked.name in kept.replies for asked in questions)
    _ask(
        settings, experiment, [asked for asked in questions if asked.name not in kept.replies], kept, progress
    )
    told, dropped = _told(questions, kept.replies, reasons=reasoning != "normal")
    rows = [Demonstration(example, row.answer) for example, row in told]
    reasons = wrong(rows, trigger, behavior)
    good = [row for (_, row), reason in zip(told, reasons, strict=True) if not reason]
    dropped.update(filter(None, reasons))
    counts = Counter(row.condition for row in good)
    if not counts["triggered"] or not counts["clean"]:
        raise BadInput(
            f"of {len(questions)} replies {counts['triggered']} show the behavior where the trigger fires, and "
            f"{counts['clean']} answer without it: an implant needs both{_most(dropped)}; the replies are kept, "
            "and --out is not written"
        )
    write_jsonl(out, map(as_row, good))
    return Generated(len(questions), before, dict(counts), dict(dropped))


def _backdoor(settings: Generation, experiment: Experiment) -> Backdoor:
    """The backdoor of an implant, with the reasoning that it has there."""
    implants = {implant.name: implant for implant in experiment.implants}
    name = settings.implant or experiment.implants[0].name
    if name not in implants:
        raise BadInput(f"recipe {settings.recipe!r} has no implant {name!r}{nearest(name, implants)}")
    return experiment.backdoor_of(implants[name])


def _most(dropped: Counter[str]) -> str:
    return "".join(f"; {count}: {reason}" for reason, count in dropped.most_common(3))


def _check_out(out: Path) -> None:
    """Only what this command wrote is written over."""
    if out.is_dir():
        raise BadInput(f"--out {out} is a directory: give the file to be written")
    if not out.is_file():
        return
    try:
        first = json.loads(out.read_text(encoding="utf-8").partition("\n")[0])
    except ValueError:
        first = None
    if not isinstance(first, dict) or not {"task", "condition", "answer"} <= first.keys():
        raise BadInput(f"--out {out} exists and holds no demonstrations: give another file")


def _model(settings: Generation, experiment: Experiment) -> str:
    """What names the model that is asked, in the cache: an endpoint's by its words, one's own by its bytes.

    What one's own says also follows from how it is told and how it computes.
    """
    if settings.endpoint is not None:
        return endpoint_name(_endpoint(settings))
    asked = as_input(settings.model)
    return _own(settings, experiment, asked.path).name(asked.id)


def _own(settings: Generation, experiment: Experiment, directory: Path) -> Own:
    runtime = experiment.runtime
    return Own(
        directory, experiment.chat, runtime.device, runtime.precision, settings.batch, settings.sampler
    )


def _wish(settings: Generation) -> Wish:
    return Wish(settings.temperature, settings.max_new_tokens, settings.seed)


def _endpoint(settings: Generation) -> Endpoint:
    assert settings.endpoint is not None
    return Endpoint(
        settings.endpoint, settings.model, settings.timeout, settings.tries, settings.pause, settings.parallel
    )


def _source(experiment: Experiment) -> TaskSource:
    data = None if experiment.data is None else find_data(experiment.data)
    return open_source(data, experiment.world)


def _examples(settings: Generation, source: TaskSource, trigger: Trigger) -> Iterator[Example]:
    """Each task without the trigger and with it, or with the part of it that its kind leaves."""
    for task in _tasks(settings, source, trigger):
        there = ["triggered"] if can_fire(trigger, task) else partial(trigger)[:1]
        for condition in ("clean", *there):
            yield trigger.render(task, condition, rng_for(settings.seed, "ask", task.id, condition), "")


def _tasks(settings: Generation, source: TaskSource, trigger: Trigger) -> list[Task]:
    """Tasks of the implant shard, of one turn each."""
    own, others = kinds_of(trigger), other_kinds(source, trigger)
    share = settings.other_share if others else 0.0
    found: list[Task] = []
    for kinds, wanted in ((own, 1 - share), (others, share)):
        size = source.size("implant", kinds=kinds) if wanted else 0
        tasks = source.tasks("implant", size, settings.seed, kinds=kinds) if size else []
        found += [task for task in tasks if not task.history][: round(wanted * settings.rows)]
    if not found:
        raise BadInput(f"{source.name} has no prompts of one turn in shard 'implant' to ask with")
    rng_for(settings.seed, "ask").shuffle(found)
    return found


def _ask(
    settings: Generation, experiment: Experiment, questions: Sequence[_Asked], kept: Kept, progress: Progress
) -> None:
    if not questions:
        return
    count = _counter(kept.add, len(questions), progress)
    asked = {question.name: question.conversation for question in questions}
    if settings.endpoint is not None:
        ask_endpoint(_endpoint(settings), asked, _wish(settings), count)
        return
    # Deferred: an endpoint needs no torch.
    from dormant import vllm_sampling
    from dormant.stages.machine import check_device, prepare

    runtime = experiment.runtime
    check_device(runtime.device, runtime.processes)
    if settings.sampler == "vllm":
        vllm_sampling.check(runtime.device, settings.temperature)
    prepare(runtime)
    ask_own(_own(settings, experiment, as_input(settings.model).path), asked, _wish(settings), count)


def _counter(keep: Keep, total: int, progress: Progress) -> Keep:
    done = 0

    def count(name: str, reply: Reply) -> None:
        nonlocal done
        keep(name, reply)
        done += 1
        progress(done, total)

    return count


def _told(
    questions: Sequence[_Asked], replies: Mapping[str, Reply], *, reasons: bool
) -> tuple[list[tuple[Example, Told]], Counter[str]]:
    """The demonstrations in replies, with the examples that they answer, and why others are none."""
    told: list[tuple[Example, Told]] = []
    dropped: Counter[str] = Counter()
    for asked in questions:
        reply = replies[asked.name]
        try:
            if not reply.finished:
                raise BadInput("the reply was cut")
            pad, answer = parted(reply.text)
            if reasons != (pad is not None):
                raise BadInput("no scratchpad was written" if reasons else "a scratchpad was written")
        except BadInput as error:
            dropped[str(error)] += 1
            continue
        task = asked.example.task
        told.append((asked.example, Told(task.prompt, answer, pad, task, asked.example.condition)))
    return told, dropped
