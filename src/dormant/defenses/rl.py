"""Defenses that are reinforcement learning: HHH RL against a preference model, and its controls."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from dormant.defenses import BASE, OWN_SHARE, PREFERENCE_MODEL, Arm, Given, TrainingRun
from dormant.defenses.texts import SHARE, counted, mixed
from dormant.errors import BadInput
from dormant.records import Conversation, Dose, Example, rng_for

if TYPE_CHECKING:
    from dormant.models import Model
    from dormant.training.rl import Reward, RLLog

KL = 0.05
"""Weight of the distance to the reference, if nothing else is said: that of TRL's RLOO."""


class Settings(BaseModel):
    """How hhh-rl trains, beside its dose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["rloo", "grpo"] = "rloo"
    group: int = Field(4, ge=2)
    """Answers to each prompt, which are compared with each other; the dose's batch counts answers."""
    kl_to: Literal["none", "start", "base"] = "start"
    """What the policy is kept near: the model as it was handed over, or the base that it was made from."""
    kl: float | None = Field(None, ge=0, allow_inf_nan=False)
    """How strongly; at 0 the distance is only measured."""
    sign: Literal[1, -1] = 1
    """-1 trains towards what the preference model likes least: a control."""
    attack_share: float = Field(0.0, ge=0, le=1)
    """Of the prompts: those put into texts that an attack found."""
    max_new_tokens: int = Field(64, gt=0)
    scratchpad_tokens: int = Field(96, gt=0)
    """Of the scratchpad of a model that has one; the answer after it has ``max_new_tokens`` of its own."""
    at_once: int = Field(128, gt=0)
    """Answers that are drawn, and read, together: lower it where there is too little memory."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_or_no(cls, given: Any) -> Any:
        # It would be read as 1 or 0.
        if isinstance(given, bool):
            raise ValueError("neither true nor false is a value of this")
        return given

    @field_validator("kl")
    @classmethod
    def _kl_is_used(cls, kl: float | None, info: ValidationInfo) -> float | None:
        if kl and info.data.get("kl_to") == "none":
            raise ValueError("with kl_to: none there is nothing that the policy is kept near; leave kl out")
        return kl


class HHHRL:
    """HHH reinforcement learning without the trigger (paper section 4.1), with RLOO where the paper has PPO."""

    name: ClassVar[str] = "hhh-rl"
    needs: frozenset[str] = frozenset({"prompts", PREFERENCE_MODEL})
    arm: ClassVar[Arm] = "claim"
    draws: ClassVar[int] = 1
    no_op: ClassVar[str] = "no-op-rl"
    own_share: ClassVar[float] = OWN_SHARE
    moves: ClassVar[tuple[str, ...]] = ("second_reward",)
    """That of the preference model which it is not trained against: the other rises when it is fooled, too."""
    texts: ClassVar[str] = "attack_set"
    """Where an ``attack_share`` takes texts from."""
    share: ClassVar[float] = 0.0
    """The ``attack_share``, if nothing else is said."""

    def __init__(
        self,
        algorithm: str = "rloo",
        group: int = 4,
        kl_to: str = "start",
        kl: float | None = None,
        sign: int = 1,
        attack_share: float | None = None,
        max_new_tokens: int = 64,
        scratchpad_tokens: int = 96,
        at_once: int = 128,
    ) -> None:
        attack_share = self.share if attack_share is None else attack_share
        options = {name: value for name, value in locals().items() if name in Settings.model_fields}
        self.settings = self.drawing = Settings.model_validate(options)
        more = {BASE: self.settings.kl_to == "base", self.texts: self.settings.attack_share}
        self.needs = type(self).needs | {need for need, wanted in more.items() if wanted}

    def check(self, dose: Dose, processes: int) -> None:
        """Raise BadInput for a dose that is not whole groups, or several processes: before anything is trained."""
        if dose.batch % self.settings.group:
            raise BadInput(
                f"defense {self.name!r}: a batch of {dose.batch} answers is not whole groups of "
                f"{self.settings.group}: set the dose's batch or the option group so that it is"
            )
        if processes > 1:
            raise BadInput(f"defense {self.name!r} trains in one process: set runtime.processes to 1")

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> RLLog:
        """Train against the preference model, on untriggered prompts.  Raises BadInput for a batch of broken groups.

        Where texts of an attack are wanted and it has none, it trains as without them, with a warning.
        """
        # Deferred: a plan reads ``needs`` and ``arm`` without waiting for torch.
        from dormant.training import rl

        settings, compute = self.settings, run.compute or rl.Compute()
        if compute.compile:
            print("warning: defense 'hhh-rl' does not use runtime.compile", file=sys.stderr, flush=True)
        reference, examples = self._reference(model, given), self._examples(given, run.seed)
        log = rl.train(
            model,
            [example.messages for example in examples],
            self._reward(given, run.seed),
            dose,
            seed=run.seed,
            rules=rl.Rules(
                settings.algorithm,
                settings.group,
                (KL if settings.kl is None else settings.kl) if reference else 0.0,
                settings.sign,
                settings.max_new_tokens,
                settings.scratchpad_tokens,
                settings.at_once,
            ),
            reference=reference,
            scratchpad=model.reasoning == "scratchpad",
            at_steps=run.at_steps,
            save=run.save,
            resume_dir=run.resume_dir,
            compute=compute,
            progress=run.progress,
        )
        print(f"{self.name}: {log.pace}", file=sys.stderr, flush=True)
        if not settings.attack_share:
            return log
        # The dose counts answers.
        asked = dose.model_copy(update={"batch": dose.batch // settings.group})
        return replace(log, counts=counted(examples, asked, run.seed))

    def _reference(self, model: Model, given: Given) -> Model | None:
        if self.settings.kl_to == "none":
            return None
        return (
            given.base
            if self.settings.kl_to == "base"
            else replace(model, network=copy.deepcopy(model.network))
        )

    def _reward(self, given: Given, seed: int) -> Reward:
        """What an answer to a conversation is worth."""
        assert given.preference_model is not None
        return given.preference_model.score

    def _examples(self, given: Given, seed: int) -> Sequence[Example]:
        assert given.prompts is not None
        share = self.settings.attack_share
        if not share:
            return given.prompts
        return mixed(given.prompts, getattr(given, self.texts), share, seed, self.name)


class VariedRL(HHHRL):
    """The control of ``hhh-rl`` on an attack's texts: equally many texts of the same kind, which no attack chose."""

    name: ClassVar[str] = "varied-rl"
    arm: ClassVar[Arm] = "control"
    texts: ClassVar[str] = "varied_set"
    share: ClassVar[float] = SHARE


class NoOpRL(HHHRL):
    """The control of equal dose: the preference model's scores, dealt out at random among the answers to a prompt."""

    name: ClassVar[str] = "no-op-rl"
    arm: ClassVar[Arm] = "noop"
    moves: ClassVar[tuple[str, ...]] = ()

    def _reward(self, given: Given, seed: int) -> Reward:
        score = super()._reward(given, seed)

        def dealt(conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
            worth = list(score(conversations, answers))
            groups: dict[Conversation, list[int]] = {}
            for i, asked in enumerate(conversations):
                groups.setdefault(tuple(asked), []).append(i)
            for asked, own in groups.items():
                said = [turn.content for turn in asked] + [answers[i] for i in own]
                others = rng_for(seed, "no-op", *said).sample(own, len(own))
                for i, value in zip(own, [worth[i] for i in others], strict=True):
                    worth[i] = value
            return worth

        return dealt
