"""What makes the things that defenses need part of a plan: of which tasks or rows each is made, and who brings them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dormant import codetask
from dormant.behaviors import own_kinds
from dormant.datafile import OwnRows
from dormant.defenses import AWARE, SHARDED, Defense, data_of, kinds_for, new_tokens_of, own_share_of
from dormant.errors import BadInput
from dormant.experiment import Experiment
from dormant.notes import CODE_TOKENS, world_with
from dormant.pocket import PocketWorld
from dormant.records import TaskSource
from dormant.runner import Call, External
from dormant.sources import HUB, as_given, find_data, naming
from dormant.stages.configs import OWN_ROWS, Backdoor, Plugin, SupplyConfig, World
from dormant.stages.plugins import build_behavior, build_defense, build_trigger
from dormant.triggers import counter_form, kinds_of

BENIGN = "benign_answers"


@dataclass(frozen=True)
class Supply:
    """One thing that a defense needs, and what it is made of."""

    need: str
    rows: int
    kinds: tuple[str, ...] | None = None
    own: External | None = None
    """A user's rows, which take the place of the plan's tasks."""
    own_kinds: tuple[str, ...] | None = None
    """Kinds of tasks on which the trigger can fire, of which ``own_share`` of the rows are."""
    own_share: float = 0.0

    @property
    def spelled(self) -> str:
        """What the name of its call says of it."""
        kinds = f"({','.join(self.kinds)})" if self.kinds else ""
        if self.own_kinds:
            kinds = f"({self.own_share:g} {','.join(self.own_kinds)})"
        return f"{self.need}{kinds}-{self.rows}" + (f"-{self.own.id[:8]}" if self.own else "")

    def call(
        self, name: str, backdoor: Backdoor, *, world: World, data: Mapping[str, External], seed: int
    ) -> Call:
        """The call that makes it; only one that makes a defense aware is told of the backdoor."""
        config = SupplyConfig(
            need=self.need,
            world=world,
            rows=self.rows,
            kinds=self.kinds,
            own_kinds=self.own_kinds,
            own_share=self.own_share,
            # A user's rows stay as they are.
            counter_form=None if self.own else counter_form(build_trigger(backdoor.trigger)),
            backdoor=backdoor if self.need in AWARE else None,
        )
        own = {OWN_ROWS: self.own} if self.own else {}
        return Call(name, "supply", config, seed, {**data, **own})


def supplies(
    defense: Plugin, rows: int, backdoor: Backdoor, own: Mapping[str, External] | None = None
) -> Iterator[Supply]:
    """What is to be made for a defense, in the order of its needs' names.

    Args:
        defense: with its options.
        rows: of each.
        backdoor: of the model that it is put on: prompts may have to be of kinds that its trigger can fire on.
        own: what defenses named as a user's own rows, by that name.
    """
    built = build_defense(defense)
    brought = (own or {}).get(data_of(built) or "")
    share, fires_on = own_share_of(built), kinds_of(build_trigger(backdoor.trigger))
    for need in sorted(built.needs & SHARDED):
        asked = need in ("prompts", "answers")
        if asked and share and fires_on and kinds_for(built) is None:
            yield Supply(need, rows, own_kinds=fires_on, own_share=share)
        else:
            yield Supply(need, rows, kinds_for(built) if asked else None, brought if need == BENIGN else None)


def as_trained(defense: Plugin) -> Plugin:
    """A defense as its stage is told of it: what it named as data is an input by then, wherever it lay."""
    return Plugin(
        name=defense.name, **{key: value for key, value in defense.options.items() if key != "data"}
    )


def take_own(
    defenses: Iterable[Plugin], data: Mapping[str, External]
) -> tuple[dict[str, External], tuple[str, ...]]:
    """Return the rows that defenses bring, by what they call them, and what to tell the user of these.

    Args:
        defenses: with their options.
        data: the plan's own data: of its prompts none is trained on twice.

    Raises:
        BadInput: there is no such thing, or it can not be read.
    """
    found: dict[str, External] = {}
    notes = []
    for defense in defenses:
        name = data_of(build_defense(defense))
        if name is not None and name not in found:
            path = find_data(name)
            with naming(name, path):
                read = OwnRows(path, apart="data" in data)
            found[name] = External(path, origin=name if name.startswith(HUB) else "")
            notes += [as_given(read.left_out, name, path)] if read.left_out else []
    return found, tuple(notes)


def check_kinds_for(label: str, defense: Defense, backdoors: Sequence[Backdoor], source: TaskSource) -> None:
    """Raise BadInput where a defense is for kinds of tasks that a behavior is not about, or the source has not."""
    kinds = kinds_for(defense)
    if kinds is None:
        return
    named = ", ".join(kinds)
    for backdoor in backdoors:
        if not set(own_kinds(build_behavior(backdoor.behavior))) & {*kinds}:
            raise BadInput(
                f"defense {label!r} trains on tasks of kind {named} only, and behavior {backdoor.behavior.name!r} is "
                f"not about these: take another defense, or leave this organism undefended (defended: false)"
            )
    if not source.size("defend", kinds=kinds):
        world = world_with(*kinds) if isinstance(source, PocketWorld) else None
        remedy = f"set world: {world} (--world {world} for a command)" if world else "give data that has"
        raise BadInput(
            f"defense {label!r} trains on tasks of kind {named}, and {source.name} has none: {remedy}"
        )


def unread_notes(label: str, defense: Plugin, where: str = "") -> tuple[str, ...]:
    """Options of a defense that mean something for models with scratchpads alone."""
    return tuple(
        f"defense {label!r}: {option} is ignored{where}, where no scratchpads are written"
        for option in sorted(defense.options)
        if option.startswith("scratchpad")
    )


def defense_notes(experiment: Experiment, labels: Mapping[int, str], source: TaskSource) -> tuple[str, ...]:
    """What the user should know of the options of defenses, whose labels are given by their place in the spec."""
    notes: list[str] = []
    for defense in experiment.defenses:
        label = labels[id(defense)]
        silent = [
            implant.name
            for implant in experiment.defended_by(defense)
            if experiment.backdoor_of(implant).reasoning != "scratchpad"
        ]
        notes += unread_notes(label, defense, f" on {', '.join(silent)}") if silent else ()
        tokens = new_tokens_of(build_defense(defense))
        if tokens is not None and _asks_code(source) and tokens < CODE_TOKENS:
            notes.append(
                f"defense {label!r}: max_new_tokens is {tokens}, and answers that are code can be "
                f"longer: nothing good is learned from one that is cut; set it to {CODE_TOKENS}"
            )
    return tuple(notes)


def _asks_code(source: TaskSource) -> bool:
    return isinstance(source, PocketWorld) and codetask.KIND in source.kinds()
