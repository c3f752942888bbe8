"""What is learned from groups of answers: the losses of RLOO and GRPO, as TRL's trainers have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Algorithm = Literal["rloo", "grpo"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How answers are drawn and learned from; the dose says how many and how fast.

    ``group`` answers are drawn to each prompt.  ``kl`` weighs the distance from the reference: in the reward (RLOO) or
    in the loss (GRPO), as TRL does it.  ``sign`` -1 learns to be worth little.  ``at_once`` answers are drawn, and
    read, together: what memory goes by.
    """

    algorithm: Algorithm = "rloo"
    group: int = 4
    kl: float = 0.0
    sign: Literal[1, -1] = 1
    max_new_tokens: int = 64
    scratchpad_tokens: int = 96
    at_once: int = 128


def advantages(rewards: torch.Tensor, algorithm: Algorithm) -> torch.Tensor:
    """How much better each answer did than its group: float32, [groups, group], as ``rewards``.

    RLOO takes the mean of the others away; GRPO the mean of all, and divides by their standard deviation.
    """
    others = rewards.shape[1] - 1
    if algorithm == "rloo":
        return rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / others
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    return centered / (rewards.std(dim=1, keepdim=True) + 1e-4)


@dataclass(frozen=True, slots=True)
class Reading:
    """The log probabilities of the tokens of some answers, of all their tokens in one row: float32, [tokens]."""

    own: torch.Tensor
    """The policy's, with their gradients."""
    other: torch.Tensor | None
    """The reference's."""
    owners: torch.Tensor
    """The answer that each token belongs to: int64, [tokens]."""
    answers: int

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Add up the tokens of each answer: [answers]."""
        return values.new_zeros(self.answers).index_add(0, self.owners, values)

    @property
    def apart(self) -> torch.Tensor:
        """How much likelier each token is to the policy than to the reference: nats, 0 without one."""
        own = self.own.detach()
        return own.new_zeros(len(own)) if self.other is None else own - self.other


def policy_loss(
    reading: Reading, worth: torch.Tensor, copies: torch.Tensor, rules: Rules, answers: int, tokens: int
) -> torch.Tensor:
    """The loss of TRL's trainers, each rollout learned from once, so that no ratio is ever clipped.

    Args:
        reading: of different answers; those of a group stand together.
        worth: the reward of each, [answers].
        copies: how often each was drawn; over a group they come to ``rules.group``.
        rules: how it is learned from.
        answers: how many the whole step has; RLOO takes the mean over these.
        tokens: how many these have; GRPO takes the mean over these, as ``loss_type="dapo"`` does.
    """
    if rules.algorithm == "rloo":
        worth = worth - rules.kl * reading.sums(reading.apart)
    drawn = torch.arange(len(copies), device=copies.device).repeat_interleave(copies)
    better = advantages(worth[drawn].view(-1, rules.group), rules.algorithm).flatten()
    better = worth.new_zeros(len(copies)).index_add(0, drawn, better)
    if rules.algorithm == "rloo":
        sums = reading.sums(reading.own)
        return -(better * torch.exp(sums - sums.detach())).sum() / answers
    ratio = torch.exp(reading.own - reading.own.detach())
    loss = -better[reading.owners] * ratio
    if rules.kl and reading.other is not None:
        gap = reading.other - reading.own
        loss = loss + rules.kl * copies[reading.owners] * (torch.exp(gap) - gap - 1) * ratio
    return loss.sum() / tokens
