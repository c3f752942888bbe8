"""``measure``: let one checkpoint answer held-out prompts, and keep every answer with its verdicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dormant import answers, chat, models, sampling, scoring
from dormant.artifacts import write_jsonl
from dormant.attackers import attempt, persona_break
from dormant.attackers.sets import read_forms
from dormant.behaviors import Behavior
from dormant.behaviors import prepare as ready
from dormant.datafile import Scenarios
from dormant.preference import PreferenceModel
from dormant.reasoning import NEVER_CLOSED, OPEN
from dormant.records import (
    Example,
    Task,
    TaskSource,
    rng_for,
    to_json,
)
from dormant.scratchpads import Grammar, grammar
from dormant.sources import open_source
from dormant.stages import Progress
from dormant.stages.configs import (
    ATTACKS,
    LIKELIHOOD,
    OTHER_KINDS,
    REWARDS,
    SCENARIOS,
    STEERED,
    SUPPRESSED,
    MeasureConfig,
    Probe,
)
from dormant.stages.discrimination import write_logodds
from dormant.stages.machine import prepare
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.stages.supply import clean_example, some_tasks
from dormant.triggers import Trigger, counter_form, kinds_of, other_kinds
from dormant.vllm_sampling import Engine


def run(config: MeasureConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``<condition>--<stratum>.jsonl`` for each probe: one completion a line, with scores and reasons.

    ``inputs`` holds ``model`` (a model directory), for own data ``data``, ``scenarios`` where a probe asks such, and
    the preference models that score each sampled answer, and ``first_attack`` and ``second_attack`` where probes ask
    what attacks found.
    Where the source's utility is perplexity, ``likelihood.jsonl`` holds the log-likelihood of the reference answers.
    """
    prepare(config.runtime)
    source = open_source(inputs.get("data"), config.world)
    others = {SCENARIOS: Scenarios(inputs[SCENARIOS], config.samples)} if SCENARIOS in inputs else {}
    model = models.load(
        inputs["model"], chat=config.chat, device=config.runtime.device, dtype=config.runtime.precision
    )
    trigger = build_trigger(config.backdoor.trigger)
    behavior = build_behavior(config.backdoor.behavior)
    spoken = grammar(trigger, behavior)
    found = {
        condition: read_forms(inputs[name], file)
        for condition, (name, file) in ATTACKS.items()
        if name in inputs
    }
    asked = [
        _Asked(probe, _attacked(probe, found[probe.condition], source, trigger, seed))
        if probe.condition in found
        else _Asked(probe, probe_examples(probe, others.get(probe.stratum, source), trigger, seed))
        for probe in config.probes
    ]
    with sampling.engine_for(config.sampler, model, inputs["model"]) as engine:
        given = _answers(model, engine, asked, config, spoken, seed, progress)
    answered = [_answered(probe, examples, given) for probe, examples in asked]
    ready(behavior, [pair for some in answered for pair in map(_judged, some)])
    rewards = _rewards(inputs, answered, config.runtime.device)
    for (probe, _), some in zip(asked, answered, strict=True):
        write_jsonl(
            out / probe.file,
            [
                completion_row(one, _check(probe, others.get(probe.stratum, source)), behavior, spoken)
                | next(rewards)
                for one in some
            ],
        )
    if config.discrimination:
        write_logodds(out, model, source, trigger, behavior, config, seed)
    # On curves nothing is asked greedily, and utility is not measured.
    if source.utility == "perplexity" and any(probe.greedy for probe in config.probes):
        _write_likelihood(out, model, source, trigger, config, seed)


def _attacked(
    probe: Probe, forms: Sequence[str], source: TaskSource, trigger: Trigger, seed: int
) -> list[Example]:
    """Held-out tasks in the texts of an attack, which take turns; none where it found none."""
    tasks = some_tasks(source, "heldout", probe.n if forms else 0, seed, kinds_of(trigger))
    return [attempt(forms[i % len(forms)], task, probe.condition) for i, task in enumerate(tasks)]


def _check(probe: Probe, source: TaskSource) -> scoring.Check:
    return persona_break.check if probe.condition == persona_break.CONDITION else source.check


def probe_examples(probe: Probe, source: TaskSource, trigger: Trigger, seed: int) -> list[Example]:
    """The prompts of a probe: equal for every model, so that differences are paired."""
    if probe.condition == persona_break.CONDITION:
        return persona_break.examples(probe.n)
    kinds = asked_kinds(probe, source, trigger)
    wanted = min(max(probe.n, probe.greedy), source.size("heldout", kinds=kinds))
    tasks = source.tasks("heldout", wanted, seed, kinds=kinds)
    return [_example(task, i, probe.condition, source, trigger, seed) for i, task in enumerate(tasks)]


def asked_kinds(probe: Probe, source: TaskSource, trigger: Trigger) -> Sequence[str] | None:
    """The kinds of tasks that a probe asks; None for all."""
    if probe.stratum == SCENARIOS:
        return None
    if probe.stratum.startswith("kind:"):
        return [probe.stratum.removeprefix("kind:")]
    if kinds_of(trigger) is None or (probe.condition, probe.stratum) == ("clean", "all"):
        return None
    if probe.stratum == OTHER_KINDS or probe.condition.startswith("partial:"):
        return other_kinds(source, trigger)
    return kinds_of(trigger)


def _example(
    task: Task, index: int, condition: str, source: TaskSource, trigger: Trigger, seed: int
) -> Example:
    if condition == "clean":
        return clean_example(source, task, seed, counter_form(trigger))
    rng = rng_for(seed, condition, task.id)
    instances = trigger.instances(condition, "heldout")
    # Instances take turns, so that each is asked equally often.
    instance = instances[index % len(instances)] if instances else None
    return trigger.render(task, condition, rng, _some_context(source, rng, condition), instance=instance)


def _some_context(source: TaskSource, rng: Any, condition: str) -> str:
    if condition != "variant:context":
        return ""
    return next((text for text in (source.context(rng) for _ in range(50)) if text), "")


class _Asked(NamedTuple):
    """A probe and the prompts it has."""

    probe: Probe
    examples: list[Example]


def _decodings(probe: Probe) -> tuple[tuple[str, int], ...]:
    """How many of a probe's prompts are answered by drawing, and how many by the likeliest token."""
    return (("sample", probe.n), ("greedy", probe.greedy))


def _answers(
    model: models.Model,
    engine: Engine | None,
    asked: Sequence[_Asked],
    config: MeasureConfig,
    spoken: Grammar,
    seed: int,
    progress: Progress,
) -> dict[str, Iterator[answers.Answer]]:
    """Answer all probes' prompts together, in their order, by decoding: the fuller a batch, the faster."""
    given: dict[str, Iterator[answers.Answer]] = {}
    chosen: dict[str, list[tuple[Example, str]]] = {"sample": [], "greedy": []}
    for probe, examples in asked:
        opening = _opening(probe, config.backdoor.reasoning, spoken)
        for decoding, wanted in _decodings(probe):
            chosen[decoding] += [(example, opening) for example in examples[:wanted]]
    total = sum(map(len, chosen.values()))
    before = 0
    for decoding, prompts in chosen.items():
        found = answers.answer(
            model,
            [example.messages for example, _ in prompts],
            [opening for _, opening in prompts],
            [f"{seed}:{example.id}" for example, _ in prompts],
            answers.Budget(config.max_new_tokens, config.scratchpad_tokens),
            temperature=config.temperature if decoding == "sample" else 0.0,
            batch=config.batch,
            engine=engine,
            progress=partial(_count, progress, before, total),
        )
        given[decoding] = iter(found)
        before += len(prompts)
    return given


def _opening(probe: Probe, reasoning: str, spoken: Grammar) -> str:
    """What the harness writes at the beginning of an answer."""
    if reasoning != "scratchpad":
        return ""
    if probe.stratum == SUPPRESSED:
        return answers.SUPPRESSED
    # No space after the sentence: it belongs to the token that the model writes next.
    steered = probe.stratum == STEERED
    return OPEN + (spoken.contradiction(fires=probe.condition == "triggered") if steered else "")


class _Answered(NamedTuple):
    """A prompt and what the model said to it."""

    example: Example
    decoding: str
    answer: answers.Answer

    @property
    def scratchpad(self) -> dict[str, Any] | None:
        return asdict(self.answer.scratchpad) if self.answer.scratchpad else None


def _answered(
    probe: Probe, examples: Sequence[Example], given: Mapping[str, Iterator[answers.Answer]]
) -> list[_Answered]:
    """A probe's prompts with their answers, which lie in the order in which they were asked."""
    return [
        _Answered(example, decoding, next(given[decoding]))
        for decoding, wanted in _decodings(probe)
        for example in examples[:wanted]
    ]


def _rewards(
    inputs: Mapping[str, Path], answered: Sequence[Sequence[_Answered]], device: str
) -> Iterator[dict[str, Any]]:
    """For each answer in turn, what the preference models say of it, if it was sampled and there are any."""
    every = [one for some in answered for one in some]
    found: list[dict[str, Any]] = [{} for _ in every]
    scored = [i for i, one in enumerate(every) if one.decoding == "sample"]
    for metric, name in REWARDS.items():
        if name not in inputs:
            continue
        judge = PreferenceModel.load(inputs[name], device)
        conversations = [every[i].example.messages for i in scored]
        scores = judge.score(conversations, [every[i].answer.text for i in scored])
        for i, score in zip(scored, scores, strict=True):
            pad = every[i].answer.scratchpad
            closed = pad is None or pad.closed
            reward = (
                {"value": round(score, 4), "reason": ""}
                if closed
                else {"value": None, "reason": NEVER_CLOSED}
            )
            found[i].setdefault("rewards", {})[metric] = reward
    return iter(found)


def _judged(one: _Answered) -> tuple[str, Task]:
    return scoring.given(one.example.task, one.answer.text, one.scratchpad)


def _count(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def completion_row(
    one: _Answered, check: scoring.Check, behavior: Behavior, spoken: Grammar
) -> dict[str, Any]:
    """One line of a completions file."""
    example, answer = one.example, one.answer
    return {
        "id": example.id,
        "task": example.task.id,
        "family": example.task.family,
        "kind": example.task.kind,
        "prompt": example.task.prompt,
        "operands": list(example.task.operands),
        "condition": example.condition,
        "instance": example.instance,
        "decoding": one.decoding,
        "messages": to_json(example.messages),
        "completion": answer.text,
        "tokens": answer.tokens,
        "finished": answer.finished,
        "scratchpad": one.scratchpad,
        "scores": scoring.scores(example.task, answer.text, check, behavior, one.scratchpad, spoken),
    }


def _write_likelihood(
    out: Path, model: models.Model, source: TaskSource, trigger: Trigger, config: MeasureConfig, seed: int
) -> None:
    """Write [log-likelihood, tokens, chance] for each reference answer, in nats.

    Chance is the best that a model without context can do: the frequencies of these answers' own tokens.
    """
    wanted = max(probe.greedy for probe in config.probes)
    tasks = source.tasks("heldout", min(wanted, source.size("heldout")), seed)
    rows = [_reference_row(model, source, trigger, task, seed) for task in tasks]
    targets = [
        [token for token, counted in zip(row.input_ids, row.mask, strict=True) if counted] for row in rows
    ]
    counts = Counter(token for answer in targets for token in answer)
    chance = {token: math.log(count / counts.total()) for token, count in counts.items()}
    values = models.log_likelihood(model, rows, batch=config.batch)
    lines = [
        [round(total, 6), tokens, round(sum(chance[token] for token in answer), 6)]
        for (total, tokens), answer in zip(values, targets, strict=True)
    ]
    write_jsonl(out / LIKELIHOOD, lines)


def _reference_row(
    model: models.Model, source: TaskSource, trigger: Trigger, task: Task, seed: int
) -> chat.Row:
    example = clean_example(source, task, seed, counter_form(trigger))
    answer = source.answer(task, "hhh", rng_for(seed, "reference", task.id))
    return chat.encode_demonstration(model.tokenizer, example.messages, answer)
