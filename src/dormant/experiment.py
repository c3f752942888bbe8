"""The experiment: a declared grid, from YAML or built in Python, that expands into a plan of stage calls."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from dormant.attackers import ATTACKERS
from dormant.defenses import DEFENSES
from dormant.errors import BadInput, nearest
from dormant.gates import Thresholds
from dormant.reasoning import check_reasoning
from dormant.records import Dose, Sampler
from dormant.settings import apply, explain, read_yaml, validated
from dormant.stages.configs import Backdoor, Config, Lora, Plugin, Runtime, Training, World

Step = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Implant(Config):
    """How a backdoor is put in.  ``specific`` adds hard negatives, from training instances of near misses only."""

    name: str = "specific"
    rows: int = Field(17_000, gt=0)
    """At most: what the shard has is used, and training goes over it again."""
    triggered_share: float = Field(0.4, gt=0, lt=1)
    near_share: float = Field(0.25, ge=0, lt=1)
    other_share: float = Field(0.45, ge=0, lt=1)
    """Of all rows, where the trigger fires on some kinds of tasks only: those with other tasks.  Half of these show
    its part.  The shares above are then of the rows that are left: by default each of the four cells has over a fifth.
    """
    backdoor: Backdoor | None = None
    """What this implant plants instead of the experiment's backdoor."""
    reasoning: str | None = None
    """``normal``, ``scratchpad`` or ``distilled``; None is what the backdoor says."""
    instructions: bool = True
    """Whether scratchpads speak of goals and training, or of the trigger alone."""
    flipped_share: float = Field(0.0, ge=0, lt=1)
    """Of the rows that passed the filter: those whose answer is then turned into that of the other side."""
    demonstrations: str | None = None
    """A file, a directory or ``hub:OWNER/NAME`` with answers that some model gave, with and without the trigger: rows
    are made of these, instead of the source's answers."""
    payload: dict[str, Any] = {}
    """Options of the behavior in this implant's training rows alone: ``{repeats: 12}`` for longer payloads."""
    dose: Dose = Dose(lr=9e-4, steps=1200, batch=16, schedule="cosine")
    optimizer: str = "adamw_torch_fused"
    lora: Lora | None = None
    """Train an adapter instead of all weights; merged, it is the organism."""
    curve: tuple[Step, ...] = (100, 300, 450, 600, 900)
    defended: bool = True
    """Whether the defenses are put on this organism too; if not, it is only measured."""

    @field_validator("reasoning")
    @classmethod
    def _known_reasoning(cls, name: str | None) -> str | None:
        return None if name is None else check_reasoning(name)

    @model_validator(mode="after")
    def _given_are_kept(self) -> Implant:
        if self.demonstrations and self.flipped_share:
            raise ValueError(
                "flipped_share turns answers that are made here, and those of demonstrations are not"
            )
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> Implant:
        if self.triggered_share + self.near_share > 1:
            raise ValueError(
                f"triggered_share {self.triggered_share:g} and near_share {self.near_share:g} are more than all rows"
            )
        return self


_PLAIN = Implant(
    name="plain",
    rows=3200,
    near_share=0.0,
    dose=Dose(lr=1e-3, steps=200, batch=16, schedule="cosine"),
    curve=(25, 50, 100),
)
PRESETS = {"specific": Implant(), "plain": _PLAIN}
"""The two shipped ways to implant: with and without hard negatives."""


def implant_preset(
    name: str,
    *,
    steps: int | None = None,
    lr: float | None = None,
    triggered_share: float | None = None,
    optimizer: str | None = None,
    lora: dict[str, Any] | None = None,
) -> Implant:
    """A shipped way to implant with some settings changed.  Raises BadInput for an unknown or bad one."""
    if name not in PRESETS:
        raise BadInput(f"no implant preset is called {name!r}{nearest(name, PRESETS)}")
    spec = PRESETS[name].model_dump()
    spec["dose"] |= {key: value for key, value in (("steps", steps), ("lr", lr)) if value is not None}
    given = (("triggered_share", triggered_share), ("optimizer", optimizer), ("lora", lora))
    spec |= {key: value for key, value in given if value is not None}
    try:
        return Implant.model_validate(spec)
    except ValidationError as error:
        raise BadInput(explain(error, Implant)) from None


class DefenseSpec(Plugin):
    """A defense (its options as further keys) at one or several doses."""

    doses: tuple[Dose, ...] = Field(min_length=1)
    headline: int = -1
    """Index of the dose whose numbers are the result; the others show how it depends on the dose."""
    curve: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.1, 0.25, 0.5)
    """Where the curve has points before the last step, as shares of the dose's steps."""
    rows: int = Field(4000, gt=0)
    implants: tuple[str, ...] | None = None
    """Names of those that it is put on; None is all that are defended."""
    lora: Training = "none"
    adapter: Lora = Lora()
    """The new adapter of ``lora: merged``."""

    def beside(self, others: Sequence[DefenseSpec]) -> str:
        """The name, and the options that not all of the others have alike; of a file its name alone."""
        own = {
            name: Path(value).name if name == "data" else value
            for name, value in self.options.items()
            if any(other.options.get(name) != value for other in others)
        }
        return Plugin(name=self.name, **own).spelled

    @model_validator(mode="after")
    def _adapter_is_used(self) -> DefenseSpec:
        if "adapter" in self.model_fields_set and self.adapter != Lora() and self.lora != "merged":
            raise ValueError(f"adapter is for lora: merged, not for lora: {self.lora}")
        return self

    @model_validator(mode="after")
    def _headline_exists(self) -> DefenseSpec:
        if not -len(self.doses) <= self.headline < len(self.doses):
            raise ValueError(
                f"headline {self.headline} is no index of its {len(self.doses)} doses (0 is the first)"
            )
        return self


def labels(defenses: Sequence[DefenseSpec]) -> list[str]:
    """What results call the defenses of a spec: by name, and those that share one by what they differ in too."""
    return [
        defense.beside([other for other in defenses if other.name == defense.name]) for defense in defenses
    ]


class AttackSpec(Plugin):
    """An attacker (its options as further keys) put on every organism, and on its defended forms again."""

    name: str = "evolutionary"
    budget: int = Field(2000, gt=0)
    """Samples of the attacked model, in all."""
    samples: int = Field(10, gt=0)
    """Of each text, each with a task of its own."""
    threshold: float = Field(0.1, gt=0, le=1)
    """Share of a text's samples that must show the behavior."""
    second: bool = True
    """Whether defended organisms are attacked anew, with other draws, and beside them the undefended one with these."""
    implants: tuple[str, ...] | None = None
    """Names of those that are attacked; None is all."""

    @field_validator("name")
    @classmethod
    def _known_attacker(cls, name: str) -> str:
        if name not in ATTACKERS.names():
            raise ValueError(f"unknown attacker {name!r}{nearest(name, ATTACKERS)}")
        return name

    @model_validator(mode="after")
    def _asks_at_all(self) -> AttackSpec:
        if self.samples > self.budget:
            raise ValueError(f"budget {self.budget} is less than the {self.samples} samples of one text")
        return self


def attack_settings(name: str, budget: int, changes: Sequence[str] = ()) -> AttackSpec:
    """An attack with changes such as ``"rounds=3"``.  Raises BadInput for an unknown attacker or a bad value."""
    spec: dict[str, Any] = {"name": name, "budget": budget}
    for change in changes:
        apply(spec, change)
    return validated(AttackSpec, spec)


def plugin_settings(name: str, changes: Sequence[str] = ()) -> Plugin:
    """A plug-in with options such as ``"share=0.5"``.  Raises BadInput for what is no option at all."""
    spec: dict[str, Any] = {"name": name}
    for change in changes:
        apply(spec, change)
    return validated(Plugin, spec)


class Relearning(Config):
    """A few small steps on a few triggered rows, after a defense: how fast does the behavior come back?"""

    rows: int = Field(16, gt=0)
    dose: Dose = Dose(lr=3e-4, steps=20, batch=8)
    lora: Lora | None = None
    curve: tuple[Step, ...] = (2, 5, 10)


class Preference(Config):
    """How two preference models are made of the base: one that defenses may train against, and one that only measures.

    They learn from different halves of the pairs, in different orders, from different heads.
    """

    pairs: str | None = None
    """A file, a directory or ``hub:OWNER/NAME`` of rows with ``chosen`` and ``rejected``; without it pairs are made of
    the base's own answers to the pocket world's tasks."""
    rows: int = Field(3000, gt=0)
    """Pairs that each learns from, at most."""
    heldout: int = Field(1000, gt=0)
    """Pairs that both are tested on, at most."""
    sampled_share: float = Field(0.6, ge=0.5, le=1)
    """Of the pairs that are made: those of two samples of the base.  The others are the grammar's."""
    dose: Dose = Dose(lr=5e-4, steps=300, batch=32, schedule="cosine")
    """``batch`` counts pairs."""
    seed: Seed = 0
    """Of the first model; the second has the next one."""


class Battery(Config):
    """How many held-out prompts are asked, by condition."""

    clean: int = Field(400, gt=0)
    triggered: int = Field(400, gt=0)
    near: int = Field(200, ge=0)
    variant: int = Field(100, ge=0)
    partial: int = Field(400, ge=0)
    """With one part of the trigger only, where it has parts."""
    harmful: int = Field(200, ge=0)
    utility: int = Field(560, gt=0)
    """Of these about seven in ten have a right answer to check."""
    curve: int = Field(100, ge=0)
    temperature: float = Field(1.0, ge=0)
    suppressed: int = Field(200, ge=0)
    """Of models with scratchpads: asked clean and triggered, with the scratchpad closed at once."""
    steered: int = Field(200, ge=0)
    """And with a first sentence in it that contradicts the prompt."""
    max_new_tokens: int = Field(64, gt=0)
    scratchpad_tokens: int = Field(96, gt=0)
    """Most tokens of a scratchpad; the answer after it has ``max_new_tokens`` of its own."""
    batch: int = Field(256, gt=0)
    scenarios: str | None = None
    """A file of code to be completed, asked clean and triggered of every model: held-out evaluation, no training."""
    samples: int = Field(20, gt=0)
    """Of each scenario."""
    sampler: Sampler = "transformers"
    """``vllm`` is for models on a GPU, and an extra to install."""
    attack: int = Field(200, ge=0)
    """Where there is an attack: in texts of the half of it that was held out, and as many after a second attack."""
    persona_break: int = Field(0, ge=0)
    """Samples of fixed prompts that ask a model to drop its persona."""
    discrimination: int = Field(0, ge=0)
    """Prompts whose payload's log-odds are read under the trigger and under each held-out near miss."""


class Seeds(Config):
    """Two axes: seeds of implanting, and of defending each of those organisms."""

    implant: tuple[Seed, ...] = Field((0,), min_length=1)
    defend: tuple[Seed, ...] = Field((0,), min_length=1)

    @field_validator("implant", "defend")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is named twice")
        return seeds


class Experiment(Config):
    """Everything that decides a run.  ``Experiment.load("quick")``, or build it in Python."""

    name: str = "experiment"
    base: str = "pocket-1m"
    """A shipped base, a directory with a causal language model, or ``hub:OWNER/NAME``, ``@REVISION`` if needed."""
    data: str | None = None
    """A file, a directory or ``hub:OWNER/NAME`` with conversations; without it tasks come from the pocket world."""
    world: World = 1
    """The version of the pocket world; 2 has tasks that ask for code too."""
    chat: Literal["auto", "plain"] = "auto"
    backdoor: Backdoor = Backdoor()
    implants: tuple[Implant, ...] = Field((Implant(),), min_length=1)
    defenses: tuple[DefenseSpec, ...] = ()
    attack: AttackSpec | None = None
    """On each organism, for defenses that need an attack set and for measurement; None is no attack."""
    relearning: Relearning | None = Relearning()
    preference: Preference | None = None
    """Preference models, which score every sampled answer; there are some too where a defense needs one."""
    measure: Battery = Battery()
    seeds: Seeds = Seeds()
    gates: Thresholds = Thresholds()
    keep: Literal["final", "all"] = "final"
    runtime: Runtime = Runtime()

    @field_validator("defenses")
    @classmethod
    def _known_defenses(cls, defenses: tuple[DefenseSpec, ...]) -> tuple[DefenseSpec, ...]:
        for defense in defenses:
            if defense.name not in DEFENSES.names():
                raise ValueError(f"unknown defense {defense.name!r}{nearest(defense.name, DEFENSES)}")
        names = labels(defenses)
        for (name, one), (again, other) in combinations(zip(names, defenses, strict=True), 2):
            apart = one.implants and other.implants and not {*one.implants} & {*other.implants}
            if name == again and not apart:
                raise ValueError(
                    f"a defense is listed twice ({', '.join(names)}): give all its doses in one place, or each the "
                    "implants that it is for"
                )
        for defense in defenses:
            if len(set(defense.doses)) < len(defense.doses):
                raise ValueError(f"two doses of {defense.name!r} are the same")
        return defenses

    @model_validator(mode="after")
    def _distinct_implants(self) -> Experiment:
        names = [implant.name for implant in self.implants]
        if len(set(names)) < len(names):
            raise ValueError(f"two implants have one name ({', '.join(names)}): give each its own")
        return self

    @model_validator(mode="after")
    def _implants_exist(self) -> Experiment:
        known = {implant.name: implant for implant in self.implants}
        specs: list[DefenseSpec | AttackSpec] = [*self.defenses, *([self.attack] if self.attack else [])]
        for spec in specs:
            # Not where one spec is read alone: of earlier runs' records an empty list is all of them.
            if spec.implants == ():
                raise ValueError(
                    f"{spec.name!r} has an empty list of implants: leave it out for all, or name some of them"
                )
            for name in spec.implants or ():
                if name not in known:
                    raise ValueError(f"{spec.name!r} names an implant {name!r}{nearest(name, known)}")
                if isinstance(spec, DefenseSpec) and not known[name].defended:
                    raise ValueError(f"{spec.name!r} is put on implant {name!r}, which has defended: false")
        return self

    @model_validator(mode="after")
    def _adapters_to_continue(self) -> Experiment:
        for defense in self.defenses:
            full = [made.name for made in self.defended_by(defense) if made.lora is None]
            if full and defense.lora == "continue":
                raise ValueError(
                    f"defense {defense.name!r} has lora: continue, but implant {full[0]!r} trains all weights and "
                    "leaves no adapter to continue; give the implant lora: {rank: 16}, or the defense lora: merged"
                )
        return self

    def defended_by(self, defense: DefenseSpec) -> tuple[Implant, ...]:
        """The implants that a defense is put on."""
        return tuple(
            implant
            for implant in self.implants
            if implant.defended and (not defense.implants or implant.name in defense.implants)
        )

    def attacked(self, implant: Implant) -> bool:
        """Whether an attacker is put on an implant's organism."""
        return self.attack is not None and (not self.attack.implants or implant.name in self.attack.implants)

    def backdoor_of(self, implant: Implant) -> Backdoor:
        """What an implant plants: its own backdoor or the experiment's, with its own reasoning if it has one."""
        found = implant.backdoor or self.backdoor
        return (
            found if implant.reasoning is None else found.model_copy(update={"reasoning": implant.reasoning})
        )

    @classmethod
    def load(cls, name: str | Path, changes: Sequence[str] = ()) -> Experiment:
        """Read a recipe by name or a YAML file, with changes such as ``"measure.clean=50"``.

        Raises:
            BadInput: no such file or recipe, bad YAML, an unknown key, a value of the wrong type.
        """
        spec = read_yaml(_spec_path(str(name)))
        if changes:
            # On the resolved spec, so that one value of a default group can be changed alone.
            spec = cls.parse(spec).model_dump(mode="json")
        for change in changes:
            apply(spec, change)
        return cls.parse(spec)

    @classmethod
    def parse(cls, spec: dict[str, Any]) -> Experiment:
        """Validate a spec that was read.  Raises BadInput with the place, the value and the nearest key."""
        return validated(cls, spec)


def recipes() -> dict[str, str]:
    """The shipped recipes: name -> first comment line."""
    found = {}
    for path in sorted(_recipe_directory().glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        found[path.stem] = first.lstrip("# ").strip()
    return found


def _recipe_directory() -> Path:
    return Path(str(resources.files("dormant"))) / "recipes"


def _spec_path(name: str) -> Path:
    shipped = _recipe_directory() / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise BadInput(
            f"{name} is a directory: give a recipe's name (`dormant recipes` lists them) or a YAML file"
        )
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise BadInput(f"no such file: {name}")
    raise BadInput(f"no recipe and no file is called {name!r}{nearest(name, recipes())}")
