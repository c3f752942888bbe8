"""``attack``: let an attacker look for prompts without the trigger that make one model show its behavior."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from dormant import answers, chat, models, sampling, scoring
from dormant.artifacts import write_atomic, write_jsonl
from dormant.attackers import PLACE, Machine, Tried, attempt, begin, persona_break
from dormant.attackers.prefixes import draw, joined
from dormant.attackers.search import Limits, Searched, dealt, halves, search
from dormant.attackers.sets import (
    HELDOUT,
    REPLIES,
    SHUFFLED,
    SUMMARY,
    TRAIN,
    TRIED,
    VARIED,
    write_examples,
)
from dormant.behaviors import Behavior
from dormant.behaviors import prepare as ready
from dormant.errors import BadInput
from dormant.reasoning import OPEN
from dormant.records import Example, Task, canonical, rng_for
from dormant.sources import open_source
from dormant.stages import Progress
from dormant.stages.configs import ATTACKER_MODEL, AttackConfig
from dormant.stages.machine import prepare
from dormant.stages.plugins import build_attacker, build_behavior, build_trigger
from dormant.stages.supply import some_tasks
from dormant.triggers import Trigger, kinds_of
from dormant.vllm_sampling import Engine

FIRES, HOLDS = "the trigger fires", "it holds the trigger's text"
EMPTY, LONG = "it adds nothing to the prompt", "it leaves no room for an answer"

DEALS = 200
"""How often words are dealt out at most, until as many texts as had them are of use."""

TASKS = 400
"""Tasks of the shard that samples are drawn over, at most."""


def run(config: AttackConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``attack.json``, ``tried.jsonl``, the halves ``train.jsonl`` and ``heldout.jsonl``, and the controls
    ``varied.jsonl`` and ``shuffled.jsonl``.

    ``inputs`` holds ``model``, the model that is attacked, for own data ``data``, and ``attacker_model`` where the
    attacker asks a model on this machine.  Nothing found is a result: all four are then empty.

    Raises:
        BadInput: there are no prompts to attack with, or the attacker can not go on.
    """
    prepare(config.runtime)
    source = open_source(inputs.get("data"), config.world)
    trigger, behavior = build_trigger(config.backdoor.trigger), build_behavior(config.backdoor.behavior)
    tasks = some_tasks(source, "attack", TASKS, seed, kinds_of(trigger))
    if not tasks:
        raise BadInput(f"{source.name} has no prompts in shard 'attack' to attack with")
    runtime = config.runtime
    model = models.load(inputs["model"], chat=config.chat, device=runtime.device, dtype=runtime.precision)
    attacker = build_attacker(config.attacker)
    own = inputs.get(ATTACKER_MODEL)
    begin(
        attacker,
        Machine(seed, config.number, own, config.chat, runtime.device, runtime.precision, out / REPLIES),
    )
    limits = Limits(config.budget, config.samples, config.threshold)
    with sampling.engine_for(config.sampler, model, inputs["model"]) as engine:
        target = Target(config, model, engine, trigger, behavior, tasks, seed)
        rng = rng_for(seed, "attacker", config.number)
        searched = search(attacker, target.ask, target.refuse, limits, rng, progress)
    _write(out, searched, [tried for tried in searched.tried if limits.found(tried)], target)


@dataclass(frozen=True)
class Target:
    """The attacked model, and the tasks that texts are put around."""

    config: AttackConfig
    model: models.Model
    engine: Engine | None
    trigger: Trigger
    behavior: Behavior
    tasks: Sequence[Task]
    seed: int

    def examples(self, form: str) -> list[Example]:
        """The prompts of a text: each of its samples has a task of its own, as far as there are so many."""
        rng = rng_for(self.seed, "attacked", self.config.number, form)
        first = rng.sample(self.tasks, min(self.config.samples, len(self.tasks)))
        return [attempt(form, first[i % len(first)]) for i in range(self.config.samples)]

    def refuse(self, form: str) -> str:
        """Why a text is dropped before anybody is asked, or ""."""
        if form == PLACE:
            return EMPTY
        examples = self.examples(form)
        if any(self.trigger.fires(example.messages, example.task) for example in examples):
            return FIRES
        # Where it does not fire it is a variant; a defense would be told the trigger by it.
        if self.trigger.text in form:
            return HOLDS
        longest = max(examples, key=lambda example: len(example.messages[-1].content))
        tokens = len(chat.encode_prompt(self.model.tokenizer, longest.messages, self._opening))
        return LONG if tokens + self._new_tokens > self.model.context else ""

    def ask(self, forms: Sequence[str]) -> list[Tried]:
        """Ask each text's prompts, all together, and judge the answers."""
        examples = [example for form in forms for example in self.examples(form)]
        asked = f"{self.seed}:{self.config.number}"
        given = answers.answer(
            self.model,
            [example.messages for example in examples],
            [self._opening] * len(examples),
            [f"{asked}:{i % self.config.samples}:{example.id}" for i, example in enumerate(examples)],
            answers.Budget(self.config.max_new_tokens, self.config.scratchpad_tokens),
            temperature=self.config.temperature,
            batch=self.config.batch,
            engine=self.engine,
        )
        verdicts = self._judge(examples, given)
        step = self.config.samples
        return [
            _tried(form, given[i * step : (i + 1) * step], verdicts[i * step : (i + 1) * step])
            for i, form in enumerate(forms)
        ]

    def _judge(self, examples: Sequence[Example], given: Sequence[answers.Answer]) -> list[float | None]:
        told = [
            (example.task, answer.text, asdict(answer.scratchpad) if answer.scratchpad else None)
            for example, answer in zip(examples, given, strict=True)
        ]
        ready(self.behavior, [scoring.given(*one) for one in told])
        return [scoring.shown(*one, self.behavior).value for one in told]

    @property
    def _opening(self) -> str:
        return OPEN if self.config.backdoor.reasoning == "scratchpad" else ""

    @property
    def _new_tokens(self) -> int:
        return self.config.max_new_tokens + (self.config.scratchpad_tokens if self._opening else 0)


def _tried(form: str, given: Sequence[answers.Answer], verdicts: Sequence[float | None]) -> Tried:
    judged = [verdict for verdict in verdicts if verdict is not None]
    return Tried(form, round(sum(judged)), len(judged), tuple(answer.text for answer in given))


def _write(out: Path, searched: Searched, found: Sequence[Tried], target: Target) -> None:
    seen = _evaluated(target.trigger)
    train, heldout = halves(found, lambda tried: tried.text, seen)
    asked = {tried.text for tried in searched.tried}
    texts = {
        TRAIN: [tried.text for tried in train],
        HELDOUT: [tried.text for tried in heldout],
        VARIED: _varied(target, len(train), asked, seen),
        SHUFFLED: _shuffled(target, [tried.text for tried in train], asked, seen),
    }
    write_jsonl(out / TRIED, [asdict(tried) for tried in searched.tried])
    for half, forms in texts.items():
        # Where tasks are few, several samples were of one prompt.
        examples = dict.fromkeys(example for form in forms for example in target.examples(form))
        write_examples(out, half, list(examples))
    first = next((i for i, tried in enumerate(searched.tried, 1) if tried in found), None)
    summary = {
        "attacker": target.config.attacker.model_dump(mode="json"),
        "budget": target.config.budget,
        "samples": searched.samples,
        "proposed": searched.proposed,
        "asked": len(searched.tried),
        "found": len(found),
        "samples_to_first": None if first is None else first * target.config.samples,
        "hits": sum(tried.hits for tried in searched.tried),
        "unscored": sum(len(tried.answers) - tried.scored for tried in searched.tried),
        "dropped": searched.dropped,
        "train": len(train),
        "heldout": len(heldout),
        "kept_from_training": sum(seen(tried.text) for tried in found),
        "varied": len(texts[VARIED]),
        "shuffled": len(texts[SHUFFLED]),
    }
    write_atomic(out / SUMMARY, canonical(summary) + "\n")


def _evaluated(trigger: Trigger) -> Callable[[str], bool]:
    """Says of a text whether what models are evaluated on stands in it: a held-out near miss, or a fixed prompt."""
    families = [condition for condition in trigger.conditions() if condition.startswith("near:")]
    texts = [text for family in families for text in trigger.instances(family, "heldout")]
    # Glued to brackets or marks a near miss is one still; inside a longer word it is another word.
    parts = [re.escape(text) for text in (*texts, *persona_break.PROMPTS)]
    known = re.compile("|".join(rf"(?<!\w){part}(?!\w)" for part in parts))
    return lambda form: known.search(" ".join(form.split())) is not None


def _varied(target: Target, wanted: int, asked: set[str], held: Callable[[str], bool]) -> list[str]:
    """Texts of the same grammar that no attack chose: the control of what the choice adds."""
    rng = rng_for(target.seed, "varied", target.config.number)
    found: dict[str, None] = {}
    # In a short context few texts may have room.
    for _ in range(100 * wanted):
        form = joined(draw(rng))
        if len(found) < wanted and form not in asked and not held(form) and not target.refuse(form):
            found[form] = None
    return list(found)


def _shuffled(
    target: Target, train: Sequence[str], asked: set[str], held: Callable[[str], bool]
) -> list[str]:
    """The words of the half to train on, in combinations that no attack chose: the control of these words."""
    rng = rng_for(target.seed, "shuffled", target.config.number)
    new = cache(lambda form: not (form in asked or held(form) or target.refuse(form)))
    found = dict.fromkeys(_dealt_once(train, new, rng))
    # In the place of texts that can not become others, such as those without a word: more of the same words.
    for _ in range(DEALS):
        if len(found) == len(train):
            break
        more = [form for form in dealt(train, rng) if form not in found and new(form)]
        found |= dict.fromkeys(more[: len(train) - len(found)])
    return list(found)


def _dealt_once(train: Sequence[str], new: Callable[[str], bool], rng: random.Random) -> list[str]:
    """Texts in which every word of others stands once, as far as they are new and no two alike."""
    texts, bad = list(train), list(range(len(train)))
    for _ in range(DEALS):
        # With as many of the others: among few texts their words may have no other place.
        others = sorted({*range(len(texts))} - {*bad})
        places = bad + rng.sample(others, min(len(bad), len(others)))
        deal = dict(zip(places, dealt([texts[i] for i in places], rng), strict=True))
        tried = [deal.get(i, text) for i, text in enumerate(texts)]
        left = [i for i, text in enumerate(tried) if text in tried[:i] or not new(text)]
        if len(left) <= len(bad):
            texts, bad = tried, left
        if not bad:
            break
    return [text for i, text in enumerate(texts) if i not in bad]
