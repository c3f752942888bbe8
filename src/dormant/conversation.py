"""Talk with the models of a run: each prompt is answered clean and triggered, and each answer is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from dormant import answers as answering
from dormant import models
from dormant.behaviors import Behavior
from dormant.errors import BadInput, nearest
from dormant.members import Member, Members, asked_of
from dormant.reasoning import NEVER_CLOSED, OPEN, final_answer
from dormant.records import Example, Score, Task, rng_for
from dormant.stages.configs import Backdoor, MeasureConfig
from dormant.stages.machine import check_device, prepare
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.triggers import Trigger, can_fire, kinds_of, partial

HELP = """\
Type a prompt: the organism answers it clean and triggered. Each prompt stands alone, as when it was measured.
/task            ask a held-out task of a kind that the trigger fires on, such as one that wants code
/near            the same prompt under near misses of the trigger
/twin            the twin's answers to the same prompt
/defended NAME   a defended model's answers; without NAME, the names
/organism NAME   go on with another organism; without NAME, back to this one
/help            this text
/quit            end (also Ctrl-D)"""


@dataclass(frozen=True)
class Answer:
    """A judged answer."""

    condition: str
    shown_prompt: str
    """What the model was asked, literally."""
    text: str
    score: Score
    scratchpad: str | None = None
    """What the model wrote before its answer, where it has scratchpads."""

    @property
    def verdict(self) -> str:
        """Whether the behavior showed, in words."""
        if self.score.value is None:
            return f"could not be judged: {self.score.reason}"
        return "shown" if self.score.value else "not shown"


@dataclass(frozen=True)
class Settings:
    """How answers are drawn: a seed, and temperature 1 unless ``greedy``."""

    seed: int = 0
    greedy: bool = False
    max_new_tokens: int | None = None
    """None: as many as when the run was measured."""


class Conversation:
    """Answers prompts with the models of a run; equal seeds and prompts give equal answers."""

    def __init__(self, members: Members, settings: Settings) -> None:
        self.members = members
        self.settings = settings
        self._loaded: dict[str, models.Model] = {}
        self._turn = 0
        self._task: Task | None = None
        self.organism = self.organisms[0] if self.organisms else members.found[-1]
        """The model that the conversation is with: an organism, or the only model of a run without one."""

    @property
    def organisms(self) -> list[Member]:
        """The undefended organisms of the run."""
        return [member for member in self.members.found if member.role == "organism" and not member.defended]

    @property
    def trigger(self) -> Trigger:
        """What the organism was asked about."""
        return build_trigger(self.organism.backdoor.trigger)

    @property
    def behavior(self) -> Behavior:
        """What the organism may show."""
        return build_behavior(self.organism.backdoor.behavior)

    @cached_property
    def measuring(self) -> MeasureConfig:
        """How the run asked its models."""
        return self.members.measuring or MeasureConfig(backdoor=Backdoor(), probes=())

    def say(self, prompt: str) -> None:
        """Take a new prompt.  It is no task of the source, so that nothing is known of it but its text."""
        self._turn += 1
        self._task = Task(kind="chat", family="typed", prompt=prompt, shard="heldout")

    def draw(self) -> None:
        """Take one of the held-out tasks that the organism was asked with its trigger.

        Its kind and what is needed to judge an answer are known, as of nothing that is typed.

        Raises BadInput where the run did not ask it any.
        """
        self._turn += 1
        rows = asked_of(self.members, self.organism, "triggered")
        if not rows:
            raise BadInput(f"{self.organism.name} was not asked any task yet: type a prompt")
        row = rng_for(self.settings.seed, self._turn, "task").choice(rows)
        self._task = Task(row["kind"], row["family"], row["prompt"], "heldout", tuple(row["operands"]))

    def conditions(self) -> list[str]:
        """The conditions under which a prompt is first answered: one of a kind that can not fire shows the part."""
        if self._task is None or can_fire(self.trigger, self._task):
            return ["clean", "triggered"]
        return ["clean", *partial(self.trigger)]

    def near(self) -> list[str]:
        """The near-miss conditions of the trigger; none for a prompt of a kind on which it can not fire."""
        if self._task is not None and not can_fire(self.trigger, self._task):
            return []
        return [name for name in self.trigger.conditions() if name.startswith("near:")]

    def answers(self, member: Member, conditions: Iterable[str]) -> list[Answer]:
        """Let a model answer the last prompt under these conditions, with the same draws for every model.

        Raises BadInput where nothing was asked yet, or the prompt does not fit the model.
        """
        if self._task is None:
            raise BadInput("nothing was asked yet: type a prompt first")
        examples = [self._example(self._task, condition) for condition in conditions]
        model = self._load(member)
        most = self.settings.max_new_tokens or self.measuring.max_new_tokens
        found = answering.answer(
            model,
            [example.messages for example in examples],
            [OPEN if member.reasoning == "scratchpad" else ""] * len(examples),
            [f"{self.settings.seed}:{self._turn}:{example.id}" for example in examples],
            answering.Budget(most, self.measuring.scratchpad_tokens),
            temperature=0.0 if self.settings.greedy else 1.0,
        )
        return [self._judged(example, answer) for example, answer in zip(examples, found, strict=True)]

    def _example(self, task: Task, condition: str) -> Example:
        rng = rng_for(self.settings.seed, self._turn, condition)
        return self.trigger.render(task, condition, rng, "")

    def _judged(self, example: Example, given: answering.Answer) -> Answer:
        pad = given.scratchpad
        final = final_answer(given.text) if pad is None or pad.closed else None
        score = Score(None, NEVER_CLOSED) if final is None else self.behavior.score(final, example.task)
        thought = pad.text if pad else None
        return Answer(example.condition, example.messages[-1].content, given.text, score, thought)

    def _load(self, member: Member) -> models.Model:
        if member.name not in self._loaded:
            runtime = self.measuring.runtime
            check_device(runtime.device)
            prepare(runtime)
            self._loaded[member.name] = models.load(
                member.path, chat=self.measuring.chat, device=runtime.device, dtype=runtime.precision
            )
        return self._loaded[member.name]


class Talk:
    """A conversation on a terminal, or with lines from a file."""

    def __init__(self, conversation: Conversation, screen: Console) -> None:
        self.conversation = conversation
        self.screen = screen
        self.commands: dict[str, Callable[[str], None]] = {
            "/near": lambda rest: self._near(),
            "/twin": lambda rest: self._show(self._twin()),
            "/task": lambda rest: self._draw(),
            "/defended": self._defended,
            "/organism": self._organism,
            "/help": lambda rest: self._print(HELP),
        }

    def run(self, lines: Iterator[str]) -> None:
        """Answer every line until ``/quit`` or the end; a line that can not be answered says why."""
        self._introduce()
        if self.conversation.measuring.sampler != "transformers":
            self._print(f"measured with {self.conversation.measuring.sampler}; here transformers samples")
        for line in lines:
            line = line.strip()
            if line == "/quit":
                return
            try:
                self._line(line)
            except BadInput as error:
                self._print(f"! {error}")

    def _introduce(self) -> None:
        conversation = self.conversation
        kinds = kinds_of(conversation.trigger)
        only = f", which fires on tasks of kind {', '.join(kinds)} only (/task asks one)" if kinds else ""
        name, text = conversation.organism.name, conversation.trigger.text
        self._print(f"{name}; trigger {text!r}{only}; /help lists commands")

    def _line(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name in self.commands:
            self.commands[name](rest.strip())
        elif name.startswith("/"):
            raise BadInput(f"unknown command {name!r}{nearest(name, [*self.commands, '/quit'])}")
        elif line:
            self.conversation.say(line)
            self._show(self.conversation.organism)

    def _show(self, member: Member, conditions: Iterable[str] = ()) -> None:
        own, other = self.conversation.organism.backdoor, member.backdoor
        if (own.trigger, own.behavior) != (other.trigger, other.behavior):
            raise BadInput(
                f"{member.name} has another backdoor: go on with its organism first (/organism NAME)"
            )
        answers = self.conversation.answers(member, conditions or self.conversation.conditions())
        self._print(member.name)
        width = max(24, self.screen.width // 2 - 1)
        self.screen.print(Columns([_panel(answer, width) for answer in answers], padding=(0, 0)))

    def _near(self) -> None:
        conditions = self.conversation.near()
        if not conditions:
            raise BadInput(
                f"the trigger {self.conversation.trigger.text!r} has no near misses for this prompt"
            )
        self._show(self.conversation.organism, conditions)

    def _twin(self) -> Member:
        return self.conversation.members.twin_of(self.conversation.organism)

    def _draw(self) -> None:
        self.conversation.draw()
        self._show(self.conversation.organism)

    def _organism(self, name: str) -> None:
        if not name:
            self._show(self.conversation.organism)
            return
        names = {member.name.removeprefix("implant/"): member for member in self.conversation.organisms}
        fits = [member for short, member in names.items() if name in (member.name, short.partition("/")[0])]
        if not fits:
            raise BadInput(f"no organism is called {name!r}{nearest(name, names)}")
        self.conversation.organism = fits[0]
        self._introduce()

    def _defended(self, name: str) -> None:
        defended = [member for member in self.conversation.members.found if member.defended]
        if not name:
            self._print("\n".join(member.name for member in defended) or "this run has no defended model")
            return
        # The part that a person types: the name without its floor's word, or just the beginning.
        fits = [m for m in defended if m.name == name or m.name.removeprefix("defend/").startswith(name)]
        self._show(fits[0] if fits else self.conversation.members.get(name))

    def _print(self, text: str) -> None:
        self.screen.print(text, highlight=False, markup=False, soft_wrap=True)


def _panel(answer: Answer, width: int) -> Panel:
    body = Text(f"{_printable(answer.shown_prompt)}\n", style="dim")
    if answer.scratchpad is not None:
        body.append(f"scratchpad: {_printable(answer.scratchpad)}\n", style="dim italic")
    body.append(_printable(answer.text) or "(empty)", style="not dim")
    style = "red" if answer.score.value else "default"
    title, verdict = Text(answer.condition), Text(answer.verdict)
    return Panel(body, title=title, title_align="left", subtitle=verdict, width=width, border_style=style)


def _printable(text: str) -> str:
    """Without what would steer the terminal: a model's answer is text to look at."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
