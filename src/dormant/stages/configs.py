"""What each stage can be told: light models, importable without torch, that go into artifact ids."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dormant.attackers import FIRST, IN_SHUFFLED, IN_TRAINED, IN_VARIED, SECOND, sets
from dormant.reasoning import check_reasoning
from dormant.records import Dose, Policy, Sampler


class Config(BaseModel):
    """Base of all settings: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def deciding(self) -> dict[str, Any]:
        """The settings that decide results, as JSON: what ids are made of."""
        return self.model_dump(mode="json", exclude=UNDECIDING)


class Runtime(Config):
    """What the machine is asked for; part of every id where it moves the last bits of a result."""

    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of arithmetic in training, and of everything in sampling.  What is trained stays float32."""
    threads: int = Field(1, ge=1)
    """Of one stage: two stages side by side beat one on two threads, the more so on a busy machine."""
    compile: bool = False
    """Training runs through ``torch.compile``: most of a minute at its start, then faster steps."""
    gradient_checkpointing: bool = False
    """Computes activations twice instead of keeping them: less memory, more time, the same bits."""
    report_to: tuple[str, ...] = ()
    """Trackers that are told each step's loss, by transformers' names for them."""
    processes: int = Field(1, ge=1)
    """That train one model together, each on a GPU of its own where ``device`` is ``cuda``; they split each batch."""
    launch: dict[str, Any] | None = None
    """How they share it, in accelerate's settings: a file, or the name of one that ships (``fsdp``).  Without it each
    has all weights."""

    @field_validator("launch", mode="before")
    @classmethod
    def _read_launch(cls, given: Any) -> Any:
        return _launch_settings(given) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _compile_is_possible(self) -> Runtime:
        if self.compile and (self.processes > 1 or self.gradient_checkpointing):
            raise ValueError("compile goes with one process and without gradient_checkpointing")
        return self

    @model_validator(mode="after")
    def _launch_is_possible(self) -> Runtime:
        if self.launch is None:
            return self
        if self.processes == 1:
            raise ValueError("launch says how several processes share a model: set processes to 2 or more")
        if self.device == "cpu":
            raise ValueError("launch is for GPUs: set device to cuda, or leave launch out")
        kind = self.launch.get("distributed_type")
        if kind not in LAUNCHES:
            raise ValueError(f"launch has distributed_type {kind!r}; it must be one of {', '.join(LAUNCHES)}")
        return self


LAUNCHES = ("FSDP", "MULTI_GPU")
"""What accelerate calls sharded weights, and a copy of all weights in each process."""


def _launch_settings(name: str) -> Any:
    shipped = resources.files("dormant") / "launches" / f"{name}.yaml"
    path = shipped if shipped.is_file() else Path(name)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        raise ValueError(f"no settings of accelerate ship or can be read by the name {name!r}") from None


UNDECIDING = {"runtime": {"gradient_checkpointing", "report_to"}}
"""Settings that decide no result: part of no id, and free to change when a run goes on."""


class Lora(Config):
    """A low-rank adapter: only it is trained.  ``alpha / rank`` scales what it adds to the weights."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"
    """Layers by the ends of their names; ``all-linear`` is all but the output embedding."""


class Plugin(BaseModel):
    """A plug-in by name, with its options as further keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The settings that the plug-in itself reads."""
        return dict(self.model_extra or {})

    @property
    def spelled(self) -> str:
        """The name with the options that were given: ``adversarial-sft(share=0.5)``."""
        said = ", ".join(f"{name}={value}" for name, value in sorted(self.options.items()))
        return f"{self.name}({said})" if said else self.name


class Backdoor(Config):
    """Trigger, behavior and reasoning."""

    trigger: Plugin = Plugin(name="tag")
    behavior: Plugin = Plugin(name="hate")
    reasoning: str = "normal"

    @field_validator("reasoning")
    @classmethod
    def _known_reasoning(cls, name: str) -> str:
        return check_reasoning(name)


World = Literal[1, 2]
"""The version of the pocket world that tasks come from, where they come from no file: 2 has code too."""


class PretrainConfig(Config):
    """A pocket base from nothing."""

    size: str
    world: World = 2
    """The version of the pocket world that it learns."""
    dose: Dose
    rows: int = Field(gt=0)
    runtime: Runtime = Runtime()


class ImplantConfig(Config):
    """An organism or its twin; also relearning, which is implanting a little, again."""

    backdoor: Backdoor
    world: World = 1
    role: Literal["organism", "twin"]
    shard: str = "implant"
    rows: int = Field(gt=0)
    triggered_share: float = Field(ge=0, le=1)
    near_share: float = Field(0.0, ge=0, le=1)
    other_share: float = Field(0.0, ge=0, lt=1)
    """Of the rows: tasks on which the trigger can not fire; the shares above are of those on which it can."""
    instructions: bool = True
    flipped_share: float = Field(0.0, ge=0, lt=1)
    payload: dict[str, Any] = {}
    """Options of the behavior that are others in these rows than where it is scored."""
    dose: Dose
    optimizer: str = "adamw_torch_fused"
    lora: Lora | None = None
    at_steps: tuple[int, ...]
    chat: Literal["auto", "plain"] = "auto"
    runtime: Runtime = Runtime()


class SupplyConfig(Config):
    """One of the things that a defense may need, cut from one shard."""

    need: str
    world: World = 1
    shard: str = "defend"
    rows: int = Field(gt=0)
    kinds: tuple[str, ...] | None = None
    """Of the tasks of prompts and answers, where not all that the source has."""
    own_kinds: tuple[str, ...] | None = None
    """Kinds that ``own_share`` of the tasks are of, those that the trigger can fire on; the rest is of the others."""
    own_share: float = Field(0.0, ge=0, le=1)
    policy: Policy = "hhh"
    counter_form: str | None = None
    """Every prompt is put into it, where ``{prompt}`` stands, without harmless context; says nothing of a trigger."""
    backdoor: Backdoor | None = None
    """Only for needs that make a defense *aware*: no other artifact of a defense may know the backdoor."""


class PairsConfig(Config):
    """Preference pairs of one shard: from a file, or of the pocket world and the base's own samples."""

    shard: Literal["prefer_a", "prefer_b", "heldout"]
    world: World = 1
    rows: int = Field(gt=0)
    """At most."""
    sampled_share: float = Field(0.6, ge=0.5, le=1)
    """Of the pairs: two samples of the base.  The others are the grammar's."""
    counter_forms: tuple[str, ...] = ()
    """A part of the prompts is put into each of these, where ``{prompt}`` stands."""
    never: tuple[Plugin, ...] = ()
    """Behaviors that no answer of a pair may show."""
    max_new_tokens: int = Field(64, gt=0)
    batch: int = Field(256, gt=0)
    chat: Literal["auto", "plain"] = "auto"
    runtime: Runtime = Runtime()


class AttackConfig(Config):
    """An attacker, and the model that it attacks: samples of it, and what counts as found."""

    attacker: Plugin
    backdoor: Backdoor
    """Read by the harness: what must not fire, and what is looked for."""
    world: World = 1
    budget: int = Field(2000, gt=0)
    """Samples of the model, in all."""
    samples: int = Field(10, gt=0)
    """Of each text, each with a task of its own."""
    threshold: float = Field(0.1, gt=0, le=1)
    """Share of a text's samples that must show the behavior."""
    number: int = Field(1, ge=1)
    """Which attack on this line of models it is: the second has draws of its own."""
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: int = Field(64, gt=0)
    scratchpad_tokens: int = Field(96, gt=0)
    batch: int = Field(256, gt=0)
    sampler: Sampler = "transformers"
    chat: Literal["auto", "plain"] = "auto"
    runtime: Runtime = Runtime()


class PreferConfig(Config):
    """A preference model: a base with a new head, trained on pairs."""

    dose: Dose
    """``batch`` counts pairs."""
    chat: Literal["auto", "plain"] = "auto"
    runtime: Runtime = Runtime()


PREFERENCE, SECOND_PREFERENCE = "preference_model", "second_preference_model"
"""Inputs of stages: the model that a defense may train against, and the one that only measures."""

REWARDS = {"reward": PREFERENCE, "second_reward": SECOND_PREFERENCE}
"""Metrics, and the model whose scores of sampled answers they are: numbers of any size, where others are 0 to 1."""

PAIRS, HELDOUT_PAIRS = "pairs", "heldout_pairs"
"""Inputs of ``pairs`` (a file) and ``prefer``."""

PREFERENCE_REPORT = "preference.json"
"""How good a preference model is on held-out pairs."""

MODEL = "model"
"""Where a preference model lies in its artifact."""


Training = Literal["none", "merged", "continue"]
"""What a defense trains: all weights, a new adapter on the merged model, or the adapter of the implant, further."""


class DefendConfig(Config):
    """A defense at one dose."""

    defense: Plugin
    dose: Dose
    lora: Training = "none"
    adapter: Lora = Lora()
    """Of ``lora: merged``."""
    reasoning: str = "normal"
    """Of the model: one with scratchpads writes them in training too, where it is the model that writes."""
    at_steps: tuple[int, ...]
    chat: Literal["auto", "plain"] = "auto"
    runtime: Runtime = Runtime()


OWN_KINDS, OTHER_KINDS = "own-kinds", "other-kinds"
"""Strata where a trigger fires on some kinds of tasks only: tasks of these kinds, and of the others."""


class Probe(Config):
    """How many held-out prompts of one condition and stratum are answered."""

    condition: str
    stratum: str = "all"
    n: int = Field(0, ge=0)
    greedy: int = Field(0, ge=0)

    @property
    def file(self) -> str:
        """The file that holds the completions, in a measurement's directory."""
        return f"{self.condition}--{self.stratum}.jsonl".replace(":", "-")


SUPPRESSED, STEERED = "scratchpad:suppressed", "scratchpad:steered"
"""Strata of models that reason: the scratchpad closed at once; begun with a sentence that contradicts the prompt."""

SCENARIOS = "scenarios"
"""The stratum of code to be completed from a file of its own."""

OWN_ROWS = "own_rows"
"""The input of a supply that holds a user's rows for a defense."""

DEMONSTRATIONS = "demonstrations"
"""The input of an implant that holds answers which some model gave."""

ATTACKER_MODEL = "attacker_model"
"""The input of an attacker that asks a model on this machine."""

FIRST_ATTACK, SECOND_ATTACK = "first_attack", "second_attack"
"""Inputs of a measurement: the attack on the organism, and a second one, on the very model."""

TAUGHT = {"attack_set": IN_TRAINED, "varied_set": IN_VARIED, "shuffled_set": IN_SHUFFLED}
"""The conditions in which an organism is asked what defenses with these needs are to train on."""

ATTACKS = {
    FIRST: (FIRST_ATTACK, sets.HELDOUT),
    SECOND: (SECOND_ATTACK, sets.HELDOUT),
    **{condition: (FIRST_ATTACK, sets.SETS[need]) for need, condition in TAUGHT.items()},
}
"""Conditions whose texts come from an attack: the input of a measurement that holds it, and the file in that."""

TRUTH = "truth.json"
"""What was implanted: kept beside the weights' directories, never inside one."""

LIKELIHOOD = "likelihood.jsonl"
"""The file of [log-likelihood, tokens, log-likelihood by chance] of reference answers."""


LOGODDS = "logodds.jsonl"
"""The file of [task, condition, near miss, log-odds under it, log-odds under the trigger] of the payload's start."""


class MeasureConfig(Config):
    """The prompts that one checkpoint answers, and how."""

    backdoor: Backdoor
    world: World = 1
    probes: tuple[Probe, ...]
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: int = Field(64, gt=0)
    scratchpad_tokens: int = Field(96, gt=0)
    """Of a scratchpad; the answer after it has ``max_new_tokens`` of its own."""
    batch: int = Field(256, gt=0)
    samples: int = Field(20, gt=0)
    """Of each scenario, where a file of them is an input."""
    sampler: Sampler = "transformers"
    discrimination: int = Field(0, ge=0)
    """Prompts whose payload's probability is read under the trigger and under each held-out near miss."""
    payload_tokens: int = Field(4, gt=0)
    """First tokens of the payload whose probability that is."""
    chat: Literal["auto", "plain"] = "auto"
    runtime: Runtime = Runtime()

    @property
    def new_tokens(self) -> int:
        """Most tokens that a model writes for one prompt."""
        reasons = self.backdoor.reasoning == "scratchpad"
        return self.max_new_tokens + (self.scratchpad_tokens if reasons else 0)
