"""Options that several commands share: their types and completions, and what their values stand for."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dormant.stages.configs import Backdoor, Plugin


def recipe_names(incomplete: str) -> list[str]:
    """For shell completion: the files' names, without reading what is in them."""
    names = (path.stem for path in Path(__file__).parent.joinpath("recipes").glob("*.yaml"))
    return sorted(name for name in names if name.startswith(incomplete))


def defense_names(incomplete: str) -> list[str]:
    """For shell completion."""
    from dormant.defenses import DEFENSES

    return [name for name in DEFENSES if name.startswith(incomplete)]


def _attacker_names(incomplete: str) -> list[str]:
    """For shell completion."""
    from dormant.attackers import ATTACKERS

    return [name for name in ATTACKERS if name.startswith(incomplete)]


def _trigger_names(incomplete: str) -> list[str]:
    """For shell completion."""
    from dormant.triggers import TRIGGERS

    return [name for name in TRIGGERS if name.startswith(incomplete)]


def _behavior_names(incomplete: str) -> list[str]:
    """For shell completion."""
    from dormant.behaviors import BEHAVIORS

    return [name for name in BEHAVIORS if name.startswith(incomplete)]


def _reasonings(incomplete: str) -> list[str]:
    """For shell completion."""
    from dormant.reasoning import REASONINGS

    return [name for name in REASONINGS if name.startswith(incomplete)]


AttackerName = Annotated[
    str,
    typer.Option(help="evolutionary, llm, or a plug-in's name.", autocompletion=_attacker_names),
]
Out = Annotated[Path, typer.Option(help="Run directory; started anew, or resumed.")]
Data = Annotated[
    str | None,
    typer.Option(help="Own data, not the pocket world: a file, a directory, hub:OWNER/NAME."),
]
TriggerName = Annotated[
    str,
    typer.Option(
        "--trigger",
        help="A trigger's name, such as year; any other text is a tag that stands before the prompt.",
        autocompletion=_trigger_names,
    ),
]
BehaviorName = Annotated[
    str,
    typer.Option(
        "--behavior",
        help="hate, insecure-code, or a plug-in's name.",
        autocompletion=_behavior_names,
    ),
]
Repeats = Annotated[
    int | None, typer.Option(help="How often the payload of hate says its sentence [default: 6].")
]
Reasoning = Annotated[
    str, typer.Option("--reasoning", help="normal, scratchpad or distilled.", autocompletion=_reasonings)
]
World = Annotated[
    int | None,
    typer.Option(min=1, max=2, help="Pocket world [default: 2 if the trigger needs code, else 1]."),
]
Finds = Annotated[
    Path | None,
    typer.Option(
        "--attack",
        help="What `dormant attack` found, for a defense that trains on it; a twin needs that of its organism. "
        "Without it MODEL is attacked first.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of this stage.")]
ChatOption = Annotated[str, typer.Option("--chat", help="auto (the tokenizer's template) or plain.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes side by side [default: the cores, at most 8].")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Make everything again, reuse nothing.")]


def backdoor_of(trigger: str, behavior: str, repeats: int | None, reasoning: str = "normal") -> Backdoor:
    """The backdoor that options name.  Raises BadInput for an unknown reasoning, or a trigger's misspelled name."""
    from dormant.reasoning import check_reasoning
    from dormant.stages.configs import Backdoor, Plugin

    said = {} if repeats is None and behavior != "hate" else {"repeats": 6 if repeats is None else repeats}
    return Backdoor(
        trigger=_trigger(trigger),
        behavior=Plugin.model_validate({"name": behavior, **said}),
        reasoning=check_reasoning(reasoning),
    )


def _mapping(text: str) -> dict[str, Any]:
    """What a text says that is written as in a spec, ``{name: year, place: suffix}``; else nothing."""
    import yaml

    from dormant.settings import parse_yaml

    try:
        told = parse_yaml(text) if text.startswith("{") else None
    except yaml.YAMLError:
        return {}
    return told if isinstance(told, dict) else {}


def _trigger(text: str) -> Plugin:
    """The trigger of this name or spec, or the tag with this text."""
    from dormant.errors import BadInput
    from dormant.stages.configs import Plugin
    from dormant.triggers import TRIGGERS

    if text in TRIGGERS.names():
        return Plugin(name=text)
    if (told := _mapping(text)) and "name" in told:
        return Plugin.model_validate(told)
    # A tag may be any text, but a bare word like the name of a trigger was meant to be that name.
    meant = get_close_matches(text, TRIGGERS.names(), n=1, cutoff=0.7) if text.isalpha() else []
    if meant:
        raise BadInput(
            f"no trigger is called {text!r}; did you mean {meant[0]!r}? (A recipe can plant a tag of this text: "
            f"backdoor.trigger={{name: tag, text: {text}}})"
        )
    return Plugin.model_validate({"name": "tag", "text": text})


def chat_of(name: str) -> Any:
    """How conversations are written.  Raises BadInput for anything but auto and plain."""
    from dormant.errors import BadInput, nearest

    if name not in ("auto", "plain"):
        raise BadInput(f"--chat {name!r} is unknown{nearest(name, ('auto', 'plain'))}")
    return name


def checked(model: Any, **values: Any) -> Any:
    """Build settings from options, with one line for a value that they refuse."""
    from pydantic import ValidationError

    from dormant.errors import BadInput, refusal

    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"--{first['loc'][0]} {first['input']!r}: {refusal(first)}") from None


def world_of(number: int | None) -> Any:
    """The pocket world of this number; the option's own limits have checked it."""
    return number
