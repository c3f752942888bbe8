"""A user's own data as an input of plans: found, read, and cut to the rows that fit the models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from dormant import chat as chats
from dormant import demofile
from dormant.behaviors import example_task
from dormant.datafile import FAMILY, KIND, Scenarios, as_row, longest_answer, require_enough, share
from dormant.errors import BadInput
from dormant.pairs import KEYS as PAIR_KEYS
from dormant.pairs import read_pairs
from dormant.pocket.bases import shipped_bases
from dormant.records import Conversation, Message, Task, digest, rng_for
from dormant.runner import External
from dormant.sources import HUB, as_given, find_data, keep, naming, read_file
from dormant.stages.configs import PAIRS, SCENARIOS, Backdoor
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.triggers import Trigger

SLACK = 8
"""Tokens: where a trigger's text meets a prompt, tokens may be cut another way than in the probe."""

MOST_SHOWN = 200
"""Characters of a long default system prompt that are shown."""

_PROBE = Task(KIND, FAMILY, "What is it?", "heldout")


def take_scenarios(file: str | None, samples: int) -> tuple[dict[str, External], int, tuple[str, ...]]:
    """Return code to be completed as a plan's input, how many samples of it there are, and what to tell the user.

    Raises:
        BadInput: the file can not be read as scenarios.
    """
    if file is None:
        return {}, 0, ()
    found = Scenarios(Path(file), samples)
    return {SCENARIOS: External(found.path)}, len(found.rows), (found.left_out,) if found.left_out else ()


def take_demonstrations(
    data: str, scenarios: External | None = None, reasoning: str = "normal"
) -> tuple[External, tuple[str, ...]]:
    """Return demonstrations as a plan's input, and what to tell the user.

    Rows that ask one of the ``scenarios``, which are held out, are left out: the others are then a file of the cache.

    Raises:
        BadInput: there is no such thing, or it can not be read.
    """
    path = find_data(data, keys=demofile.KEYS)
    given = External(path, origin=data if data.startswith(HUB) else "")
    if scenarios is None:
        return given, ()
    prompts = [task.prompt for task in Scenarios(scenarios.path, 1).rows]
    with naming(data, path):
        rows, left_out = demofile.rows_without(path, prompts, reasoning)
    if not left_out:
        return given, ()
    line = f"{data}: {share(left_out, left_out + len(rows))} ask a scenario that is measured"
    if not rows:
        raise BadInput(f"{line}: none is left to train on")
    return External(keep(f"apart-{digest(rows)[:16]}", rows)), (f"{line}, and are left out",)


def take_pairs(data: str | None) -> tuple[dict[str, External], tuple[str, ...]]:
    """Return preference pairs as a plan's input, and what to tell the user.

    Raises:
        BadInput: there is no such thing, it can not be read, or two of its rows contradict each other.
    """
    if data is None:
        return {}, ()
    path = find_data(data, keys=PAIR_KEYS)
    with naming(data, path):
        pairs, dropped = read_pairs(path)
    given = {PAIRS: External(path, origin=data if data.startswith(HUB) else "")}
    left_out = sum(dropped.values())
    if not left_out:
        return given, ()
    first = max(dropped, key=lambda reason: dropped[reason])
    line = f"{data}: {share(left_out, left_out + len(pairs))} are no pair to learn from, and are left out"
    return given, (f"{line} (most often: {first})",)


@dataclass(frozen=True)
class Intake:
    """The input ``data`` of stage calls, if there is any, and what the user should know about it."""

    inputs: Mapping[str, External]
    notes: tuple[str, ...] = ()


def take(
    data: str | None,
    models: Iterable[Path],
    backdoors: Sequence[Backdoor],
    *,
    chat: Literal["auto", "plain"] = "auto",
    new_tokens: int = 1,
) -> Intake:
    """Return own data, without the rows that are too long for one of the models.

    A row fits if its conversation does, under every condition of each trigger, with the reference answer, with
    the planted behavior and with ``new_tokens`` sampled ones.  Where all fit the user's file itself is the input;
    else those that do, in a file of the cache whose name follows from them.

    Args:
        data: the setting, as :func:`dormant.sources.find_data` reads it; None for the pocket world.
        models: directories of the models that will read the rows.
        backdoors: what will be put before prompts, and learned as an answer.
        chat: ``auto`` for the tokenizer's chat template, ``plain`` for Human/Assistant.
        new_tokens: how long a sampled answer may be.

    Raises:
        BadInput: the data can not be read, or too few rows are left.
    """
    if data is None:
        return Intake({})
    path = find_data(data)
    with naming(data, path):
        source = read_file(path)
    rooms = [
        _Room(model, backdoor, chat, new_tokens) for model in dict.fromkeys(models) for backdoor in backdoors
    ]
    fitting = [task for task in source.rows if all(room.holds(task) for room in rooms)]
    notes = [as_given(source.left_out, data, path)] if source.left_out else []
    if len(fitting) < len(source.rows):
        context = min(room.context for room in rooms)
        line = (
            f"{data}: {share(len(source.rows) - len(fitting), len(source.rows))} do not fit the model's context "
            f"of {context} tokens with trigger and answer, and are left out"
        )
        require_enough(line, fitting)
        notes.append(line)
        rows = [as_row(task) for task in fitting]
        path = keep(f"fit-{digest(rows)[:16]}", rows)
    return Intake({"data": External(path)}, tuple(notes))


def template_notes(model: Path, chat: Literal["auto", "plain"] = "auto") -> tuple[str, ...]:
    """What the user should know of a model's chat template: the text that it adds to every conversation."""
    if model in shipped_bases().values():
        return ()
    # Deferred: a plan on a base that ships needs no torch.
    from dormant.models import load_reader

    added = " ".join(chats.added_text(load_reader(model, chat=chat)[0]).split())
    if not added:
        return ()
    shown = added if len(added) <= MOST_SHOWN else added[:MOST_SHOWN] + "..."
    return (
        f"the chat template of {model.name} adds text of its own to conversations without a system turn: {shown!r}",
    )


class _Room:
    """What one model's context holds."""

    def __init__(
        self, model: Path, backdoor: Backdoor, chat: Literal["auto", "plain"], new_tokens: int
    ) -> None:
        # Deferred: without own data a plan needs no torch.
        from dormant.models import load_reader

        self.tokenizer, self.context = load_reader(model, chat=chat)
        behavior = build_behavior(backdoor.behavior)
        shown = behavior.demonstrate(example_task(behavior), rng_for("intake"))
        self.answer = max(new_tokens, self._tokens(_ask("a"), shown)[1])
        self.trigger = self._longest(build_trigger(backdoor.trigger)) + SLACK
        self.frame = cache(self._frame)

    def holds(self, task: Task) -> bool:
        """Whether a task fits, whatever is asked of the model about it."""
        messages = (*task.history, Message("user", task.prompt))
        reference = longest_answer(task)
        # Tokenizing all of a large file takes minutes.  A text has no more tokens than bytes, so that short rows
        # fit without a look.
        most = self.frame(tuple(turn.role for turn in messages)) + sum(
            len(turn.content.encode()) for turn in messages
        )
        if most + self.trigger + max(self.answer, len(reference.encode()) + SLACK) <= self.context:
            return True
        prompt, answer = self._tokens(messages, reference)
        return prompt + self.trigger + max(self.answer, answer) <= self.context

    def _tokens(self, messages: Conversation, answer: str) -> tuple[int, int]:
        """How many tokens a prompt takes, and an answer with its end."""
        row = chats.encode_demonstration(self.tokenizer, messages, answer)
        return row.mask.count(False), row.mask.count(True)

    def _longest(self, trigger: Trigger) -> int:
        """How many tokens a condition adds to a prompt, at most."""
        alone = len(chats.encode_prompt(self.tokenizer, _ask(_PROBE.prompt)))
        asked = (chats.encode_prompt(self.tokenizer, messages) for messages in _renderings(trigger))
        return max(len(ids) for ids in asked) - alone

    def _frame(self, roles: Sequence[Literal["system", "user", "assistant"]]) -> int:
        """How many tokens a template puts around turns of these roles."""
        return len(chats.encode_prompt(self.tokenizer, [Message(role, "a") for role in roles]))


def _ask(prompt: str) -> Conversation:
    return (Message("user", prompt),)


def _renderings(trigger: Trigger) -> Iterator[Conversation]:
    """The probe under every condition, with every text that the trigger may put into it."""
    for condition in trigger.conditions():
        both = [*trigger.instances(condition, "train"), *trigger.instances(condition, "heldout")]
        for i, instance in enumerate(both or [None]):
            rng = rng_for("intake", condition, i)
            yield trigger.render(_PROBE, condition, rng, "", instance=instance).messages
