"""``prefer``: train a preference model on pairs, make its scores mean log-odds, and see how good it is on others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.optimize import minimize_scalar

from dormant import models, stats
from dormant.artifacts import RESUME, write_atomic
from dormant.chat import Row
from dormant.errors import BadInput, DormantError
from dormant.models import Model
from dormant.pairs import CHECKERS, Pair
from dormant.preference import encode, score_rows
from dormant.records import canonical, rng_for
from dormant.stages import Progress
from dormant.stages.checkpoints import compute
from dormant.stages.configs import HELDOUT_PAIRS, MODEL, PAIRS, PREFERENCE_REPORT, PreferConfig
from dormant.stages.logs import write_log
from dormant.stages.machine import prepare
from dormant.stages.pairs import read
from dormant.training import preference

KEPT_BACK = 0.1
"""Of the training pairs: not trained on, but asked how sure of itself the model may be."""

ENOUGH = 20
"""Pairs from which that can be told."""


class _Encoded(NamedTuple):
    """A pair and the tokens of its two answers, each after the prompt."""

    pair: Pair
    chosen: Row
    rejected: Row


def run(config: PreferConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``model/`` (a sequence classifier of one label), ``training.json`` and ``preference.json``.

    ``inputs`` holds ``model`` (a language model; the head is drawn from the seed), ``pairs`` and ``heldout_pairs``.

    Raises:
        BadInput: no pair fits the model's context.
        DormantError: the loss or the weights are no numbers.
    """
    prepare(config.runtime)
    model = models.load_scorer(
        inputs["model"], chat=config.chat, device=config.runtime.device, head_seed=seed
    )
    pairs, too_long = _encoded(model, read(inputs[PAIRS]))
    heldout, _ = _encoded(model, read(inputs[HELDOUT_PAIRS]))
    kept = [each for each in pairs if _is_kept_back(each.pair)]
    learned = [each for each in pairs if not _is_kept_back(each.pair)]
    log = preference.train(
        model,
        [(each.chosen, each.rejected) for each in learned],
        config.dose,
        seed=seed,
        resume_dir=out / RESUME,
        compute=compute(config.runtime),
        progress=progress,
    )
    if not all(torch.isfinite(weights).all() for weights in model.network.parameters()):
        raise DormantError(
            f"the weights are not finite after step {config.dose.steps}: lower the learning rate"
        )
    temperature = temperature_of(_margins(model, kept)) if len(kept) >= ENOUGH else 1.0
    model.network.score.weight.data /= temperature
    models.save(model, out / MODEL)
    write_log(out, log, (config.dose.steps,), {each.pair.task for each in learned})
    report = {
        "pairs": {"learned": len(learned), "kept_back": len(kept), "too_long": too_long},
        "temperature": round(temperature, 6),
        **_quality(heldout, _margins(model, heldout), learned),
    }
    write_atomic(out / PREFERENCE_REPORT, canonical(report) + "\n")


def temperature_of(margins: Sequence[float]) -> float:
    """By what to divide scores so that their differences are log-odds: the maximum of the likelihood of these margins.

    Each is by how much a better answer scored above a worse one.  Targets are Platt's (1999), a little short of
    certainty, so that margins without an error do not ask for certainty.
    """
    d = torch.tensor(margins, dtype=torch.float64)
    sure = (len(margins) + 1) / (len(margins) + 2)

    def loss(log_temperature: float) -> float:
        scaled = d / math.exp(log_temperature)
        softplus = torch.nn.functional.softplus
        return float((sure * softplus(-scaled) + (1 - sure) * softplus(scaled)).mean())

    return math.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded").x)


def _is_kept_back(pair: Pair) -> bool:
    return rng_for("kept back", pair.prompt).random() < KEPT_BACK


def _encoded(model: Model, pairs: Sequence[Pair]) -> tuple[list[_Encoded], int]:
    """The pairs that fit the model's context, and how many do not."""
    all_rows = [
        _Encoded(
            pair, *(encode(model.tokenizer, pair.messages, text) for text in (pair.chosen, pair.rejected))
        )
        for pair in pairs
    ]
    fitting = [
        each
        for each in all_rows
        if max(len(each.chosen.input_ids), len(each.rejected.input_ids)) <= model.context
    ]
    if not fitting:
        raise BadInput(
            f"all {len(pairs)} preference pairs are too long for the model's context of {model.context} tokens"
        )
    return fitting, len(all_rows) - len(fitting)


def _margins(model: Model, pairs: Sequence[_Encoded]) -> list[float]:
    """By how much the chosen answer of each pair scores above the rejected one, in logits."""
    found = score_rows(model, [row for each in pairs for row in (each.chosen, each.rejected)])
    return [chosen - rejected for chosen, rejected in zip(found[::2], found[1::2], strict=True)]


def _quality(
    heldout: Sequence[_Encoded], margins: Sequence[float], learned: Sequence[_Encoded]
) -> dict[str, Any]:
    """Accuracy on held-out pairs, of all and by origin and checker; calibration; what length alone would do."""
    origins = sorted({each.pair.origin for each in heldout})
    groups = {"all": list(margins)}
    groups |= {o: [m for e, m in zip(heldout, margins, strict=True) if e.pair.origin == o] for o in origins}
    for checker in CHECKERS:
        of = [m for e, m in zip(heldout, margins, strict=True) if e.pair.better == (checker,)]
        groups |= {f"only {checker}": of} if of else {}
    error, of_perfect = stats.calibration_error([(1 + math.tanh(m / 2)) / 2 for m in margins])
    return {
        "accuracy": {
            name: _rounded(stats.proportion(sum(m > 0 for m in of), len(of))) for name, of in groups.items()
        },
        "calibration_error": {
            "value": round(error, 6),
            "of_perfect": round(of_perfect, 6),
            "n": len(margins),
        },
        "length_only": _length_only(heldout, learned),
    }


def _length_only(heldout: Sequence[_Encoded], learned: Sequence[_Encoded]) -> dict[str, Any]:
    """How often the rule that is better on the pairs of training, longer or shorter, is right on held-out ones."""
    longer = sum(map(_longer, learned)) >= len(learned) / 2
    right = [_longer(each) if longer else 1 - _longer(each) for each in heldout]
    return {"rule": "longer" if longer else "shorter", **_rounded(stats.mean_interval(right))}


def _longer(each: _Encoded) -> float:
    """1 where the chosen answer has more tokens, 0 where it has fewer, a half where neither."""
    a, b = sum(each.chosen.mask), sum(each.rejected.mask)
    return 0.5 * ((a > b) + (a >= b))


def _rounded(found: stats.Estimate) -> dict[str, Any]:
    return {
        "value": round(found.value, 6),
        "low": round(found.low, 6),
        "high": round(found.high, 6),
        "n": found.n,
    }
