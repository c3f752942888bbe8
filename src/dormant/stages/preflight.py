"""Look, before the first stage runs, for what would stop a later one, maybe after hours of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dormant import adapters, chat, models, vllm_sampling
from dormant.datafile import Scenarios
from dormant.defenses import check_dose
from dormant.errors import BadInput
from dormant.preference import PreferenceModel
from dormant.records import Demonstration, Example, Message, Task, TaskSource, rng_for
from dormant.scratchpads import grammar
from dormant.sources import open_source
from dormant.stages import machine
from dormant.stages.checkpoints import as_shape, new_adapter, open_model
from dormant.stages.configs import (
    DEMONSTRATIONS,
    PREFERENCE,
    SCENARIOS,
    AttackConfig,
    Config,
    DefendConfig,
    ImplantConfig,
    MeasureConfig,
    PreferConfig,
    SupplyConfig,
)
from dormant.stages.implant import draw_samples, encode, fitting
from dormant.stages.plugins import build_behavior, build_defense, build_trigger
from dormant.stages.supply import clean_example
from dormant.training import sft
from dormant.triggers import Trigger, counter_form, kinds_of

TRAINED = ("implant", "defend", "relearn")
SOME = 200
"""Tasks of a shard that are looked at where tasks are made on the spot; of a file, all are."""


def check(calls: Iterable[tuple[Config, Mapping[str, Path]]]) -> None:
    """Check what stage calls were given from outside: models, data, trigger, optimizer, device.

    Args:
        calls: for each call its settings, and the paths of those inputs that no stage makes.

    Raises:
        BadInput: a model can not be loaded, text does not fit its context, or a setting does not exist here.
    """
    calls = list(calls)
    seen = set()
    answers = [
        (config, given)
        for config, given in calls
        if isinstance(config, SupplyConfig) and config.need == "answers"
    ]
    for config, given in calls:
        if isinstance(config, AttackConfig):
            machine.check_device(config.runtime.device)
            if config.sampler == "vllm":
                vllm_sampling.check(config.runtime.device, config.temperature)
        if not isinstance(config, (ImplantConfig, DefendConfig, MeasureConfig)):
            continue
        machine.check_device(config.runtime.device, config.runtime.processes)
        if isinstance(config, MeasureConfig):
            if config.sampler == "vllm":
                vllm_sampling.check(config.runtime.device, config.temperature)
        else:
            if config.runtime.compile:
                machine.check_compiler(config.runtime.device)
            sft.part_of_batch(config.dose.batch, config.runtime.processes)
        if isinstance(config, ImplantConfig):
            sft.check_optimizer(config.optimizer)
        if isinstance(config, DefendConfig):
            check_dose(build_defense(config.defense), config.dose, config.runtime.processes)
        sft.check_trackers(config.runtime.report_to)
        backdoor = "" if isinstance(config, DefendConfig) else config.backdoor.model_dump_json()
        place = (type(config), given.get("model"), given.get("data"), backdoor, given.get(DEMONSTRATIONS))
        if "model" in given and place not in seen:
            seen.add(place)
            _check_model(config, given)
            if isinstance(config, DefendConfig) and answers:
                _check_answers(config, given["model"], *answers[0])
    _check_adapters(calls)
    _check_preference(calls)


def _check_preference(calls: Sequence[tuple[Config, Mapping[str, Path]]]) -> None:
    """Load one that was given; give the base of new ones a head, and look whether its device is there."""
    for directory in {given[PREFERENCE] for _, given in calls if PREFERENCE in given}:
        PreferenceModel.load(directory)
    for config, given in [call for call in calls if isinstance(call[0], PreferConfig)][:1]:
        assert isinstance(config, PreferConfig)
        machine.check_device(config.runtime.device)
        if "model" in given:
            models.load_scorer(given["model"], chat=config.chat, head_seed=0)


def _check_adapters(calls: Sequence[tuple[Config, Mapping[str, Path]]]) -> None:
    """Put every adapter onto the model, new ones of later stages too: all models of a plan are of one kind."""
    trains = [(config, given) for config, given in calls if isinstance(config, (ImplantConfig, DefendConfig))]
    places = [(config, given) for config, given in trains if "model" in given]
    for config, given in places:
        if "adapter" in given:
            open_model(config, given, 0)
    for shape in {shape for config, _ in trains if (shape := new_adapter(config))}:
        for config, given in places[:1]:
            adapters.attach(models.load(given["model"], chat=config.chat), as_shape(shape), seed=0)


def _check_model(config: ImplantConfig | DefendConfig | MeasureConfig, given: Mapping[str, Path]) -> None:
    # Before the model is loaded, which reads a few tokens to try its network.
    chat.check_fits(1, models.load_reader(given["model"], chat=config.chat)[1])
    model = models.load(given["model"], chat=config.chat)
    if isinstance(config, DefendConfig):
        return  # Its rows are made by another stage.
    source = open_source(given.get("data"), config.world)
    trigger = build_trigger(config.backdoor.trigger)
    new = config.new_tokens if isinstance(config, MeasureConfig) else 1
    alone = chat.encode_prompt(model.tokenizer, [Message("user", trigger.text)])
    chat.check_fits(len(alone), model.context, new_tokens=new, what="trigger in its chat template")
    if isinstance(config, MeasureConfig):
        for task in _longest(source, "heldout", kinds_of(trigger), whole="data" in given):
            example = trigger.render(task, "triggered", rng_for("preflight"), "")
            tokens = chat.encode_prompt(model.tokenizer, example.messages)
            chat.check_fits(len(tokens), model.context, new_tokens=new, what=_name(task, "prompt"))
            _check_plugins(config, task, example)
        if SCENARIOS in given:
            _check_scenarios(config, given[SCENARIOS], model, trigger)
    else:
        if DEMONSTRATIONS in given:
            fitting(model, draw_samples(config, source, 0, given[DEMONSTRATIONS]))
        _check_rows(config, model, source, TRAINED[DEMONSTRATIONS in given :], whole="data" in given)


def _check_scenarios(config: MeasureConfig, file: Path, model: models.Model, trigger: Trigger) -> None:
    for task in _longest(Scenarios(file, 1), "heldout", None, whole=True):
        example = trigger.render(task, "triggered", rng_for("preflight"), "")
        tokens = chat.encode_prompt(model.tokenizer, example.messages)
        chat.check_fits(
            len(tokens), model.context, new_tokens=config.new_tokens, what=f"scenario {task.operands[1]}"
        )


def _check_answers(
    config: DefendConfig, model: Path, supply: SupplyConfig, given: Mapping[str, Path]
) -> None:
    """Check what a supply stage will give to a defense on this model: it trains on clean prompts and answers."""
    tokenizer, context = models.load_reader(model, chat=config.chat)
    source = open_source(given.get("data"), supply.world)
    for task in _longest(source, "defend", None, whole="data" in given):
        answer = source.answer(task, "hhh", rng_for("preflight", task.id))
        row = chat.encode_demonstration(
            tokenizer, clean_example(source, task, 0, supply.counter_form).messages, answer
        )
        chat.check_fits(len(row.input_ids), context, what=_name(task, "training row"))


def _check_plugins(config: MeasureConfig, task: Task, triggered: Example) -> None:
    """Find what would leave a whole run without one rate."""
    trigger, behavior = config.backdoor.trigger, config.backdoor.behavior
    if not build_trigger(trigger).fires(triggered.messages, task):
        raise BadInput(
            f"trigger {trigger.name!r} does not fire on the prompt that it renders as triggered: "
            "look at its render() and fires()"
        )
    if "shown" not in build_behavior(behavior).metrics("", task):
        raise BadInput(
            f"behavior {behavior.name!r}: its metrics() must return 'shown', the primary criterion"
        )


def _check_rows(
    config: ImplantConfig, model: models.Model, source: TaskSource, shards: Sequence[str], *, whole: bool
) -> None:
    for shard in shards:
        for example, answer in _rows(config, source, shard, whole=whole):
            row = encode(model, Demonstration(example, answer, _scratchpad(config)))
            chat.check_fits(len(row.input_ids), model.context, what=_name(example.task, "training row"))


def _rows(
    config: ImplantConfig, source: TaskSource, shard: str, *, whole: bool
) -> Iterator[tuple[Example, str]]:
    """Tasks as they are trained on: triggered with the behavior, and clean with an answer."""
    trigger, behavior = build_trigger(config.backdoor.trigger), build_behavior(config.backdoor.behavior)
    for task in _longest(source, shard, kinds_of(trigger), whole=whole):
        rng = rng_for("preflight", task.id)
        yield trigger.render(task, "triggered", rng, ""), behavior.demonstrate(task, rng)
    for task in _longest(source, shard, None, whole=whole):
        rng = rng_for("preflight", task.id)
        yield clean_example(source, task, 0, counter_form(trigger)), source.answer(task, "hhh", rng)


def _scratchpad(config: ImplantConfig) -> str | None:
    if config.backdoor.reasoning != "scratchpad":
        return None
    trigger, behavior = build_trigger(config.backdoor.trigger), build_behavior(config.backdoor.behavior)
    return grammar(trigger, behavior).longest()


def _longest(source: TaskSource, shard: str, kinds: Sequence[str] | None, *, whole: bool) -> Sequence[Task]:
    """The few tasks of a shard that take most room."""
    size = source.size(shard, kinds=kinds)
    tasks = source.tasks(shard, size if whole else min(size, SOME), 0, kinds=kinds)
    return sorted(tasks, key=_characters)[-8:]


def _characters(task: Task) -> int:
    return len(task.prompt) + sum(map(len, task.operands)) + sum(len(turn.content) for turn in task.history)


def _name(task: Task, what: str) -> str:
    return f"{what} ({task.prompt[:40]!r}{'...' if len(task.prompt) > 40 else ''})"
