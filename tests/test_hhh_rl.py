"""The defense ``hhh-rl``: its options, what it is kept near, prompts of an attack, scratchpads, and its gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dormant import preference_gates
from dormant.artifacts import RESUME
from dormant.defenses import BASE, Given, TrainingRun
from dormant.defenses.rl import HHHRL, mixed
from dormant.errors import BadInput
from dormant.evidence import Evidence, Thresholds
from dormant.pocket import PocketWorld
from dormant.records import Conversation, Dose, Example, Message, ResultKey
from dormant.stages import preflight, quiet
from dormant.stages.configs import DefendConfig, Plugin, Runtime
from dormant.stages.logs import write_log
from dormant.stages.plugins import build_defense
from dormant.training import rl
from dormant.training.sft import TrainingLog
from dormant.verbs import defend_plan
from small_models import tiny

DOSE = Dose(lr=1e-2, steps=2, batch=8)


class Judge:
    """Likes ASCII, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Conversation, str]] = []

    def score(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        self.asked += zip(conversations, answers, strict=True)
        return [sum(char.isascii() for char in answer) / max(1, len(answer)) for answer in answers]


def examples(n: int, condition: str = "clean") -> list[Example]:
    tasks = PocketWorld().tasks("defend", n, 0)
    return [Example(task, condition, (Message("user", f"{condition} {i}"),)) for i, task in enumerate(tasks)]


def defended(place: Path, reasoning: str = "normal", **options: Any) -> tuple[rl.RLLog, Judge]:
    judge: Any = Judge()
    defense: HHHRL = build_defense(Plugin(name="hhh-rl", max_new_tokens=4, **options))  # type: ignore[assignment]
    given = Given(prompts=examples(8), preference_model=judge, base=tiny(seed=1))
    run = TrainingRun(0, (2,), lambda step, model: None, place / RESUME, quiet)
    return defense.train(replace(tiny(), reasoning=reasoning), given, DOSE, run), judge


def test_what_it_is_kept_near_is_the_start_the_base_or_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    distances = {to: defended(tmp_path / to, kl_to=to)[0].curves["kl"] for to in ("none", "start", "base")}
    assert distances["none"] == (None, None)
    assert distances["start"][0] == pytest.approx(0.0, abs=1e-5)
    assert abs(distances["base"][0]) > 1e-3
    assert build_defense(Plugin(name="hhh-rl", kl_to="base")).needs >= {BASE}
    assert BASE not in HHHRL.needs
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 3
    assert told[0].startswith("hhh-rl: 2 steps of 8 answers, ")
    assert all(phase in told[0] for phase in rl.PHASES)


def test_a_flipped_sign_learns_the_opposite_and_the_curve_is_of_what_the_judge_said(tmp_path: Path) -> None:
    up, down = (defended(tmp_path / str(sign), sign=sign)[0] for sign in (1, -1))
    assert up.curves["reward"][0] == down.curves["reward"][0]
    assert up.curves["reward"][1] > down.curves["reward"][1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"algorithm": "ppo"}, "defense 'hhh-rl': algorithm = 'ppo': Input should be 'rloo' or 'grpo'"),
        ({"group": 1}, "group = 1"),
        ({"kl_to": "none", "kl": 0.1}, "with kl_to: none there is nothing that the policy is kept near"),
        ({"sign": 0}, "sign = 0"),
        ({"attack_share": 1.5}, "attack_share = 1.5"),
        ({"grup": 8}, "has no option 'grup'; did you mean 'group'"),
    ],
)
def test_a_bad_option_is_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        build_defense(Plugin(name="hhh-rl", **options))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "processes", "says"),
    [(6, 1, "a batch of 6 answers is not whole groups of 4"), (8, 2, "set runtime.processes to 1")],
)
def test_a_dose_that_can_not_be_trained_is_found_before_anything_is(
    batch: int, processes: int, says: str, base: Path
) -> None:
    config = DefendConfig(
        defense=Plugin(name="hhh-rl"),
        dose=Dose(lr=1e-3, steps=1, batch=batch),
        at_steps=(1,),
        runtime=Runtime(processes=processes),
    )
    with pytest.raises(BadInput, match=says):
        preflight.check([(config, {"model": base})])


def test_the_base_is_known_in_a_run_or_under_an_adapter(base: Path, tmp_path: Path) -> None:
    from dormant import models

    models.save(models.load_scorer(base, head_seed=0), tmp_path / "judge")
    defense = Plugin(name="hhh-rl", kl_to="base")
    with pytest.raises(BadInput, match="kl_to: start"):
        defend_plan(str(base), defense, DOSE, preference_model=tmp_path / "judge")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_prompts_of_an_attack_take_the_places_of_a_share(share: float) -> None:
    prompts, attacks = examples(40), examples(3, "attacked")
    found = mixed(prompts, attacks, share, seed=0)
    changed = [i for i, (old, new) in enumerate(zip(prompts, found, strict=True)) if old is not new]
    assert len(changed) == round(share * 40)
    assert {found[i].condition for i in changed} <= {"attacked"}
    counts = [sum(found[i] is attack for i in changed) for attack in attacks]
    assert max(counts) - min(counts) <= 1  # they take turns
    more = mixed(prompts, attacks, 0.75, seed=0)
    assert all(more[i].condition == "attacked" for i in changed)
    with pytest.raises(BadInput, match="the attack found no prompt"):
        mixed(prompts, [], share, seed=0)


def test_a_model_with_scratchpads_is_asked_with_one_opened_and_scored_without(tmp_path: Path) -> None:
    log, judge = defended(tmp_path, reasoning="scratchpad", scratchpad_tokens=6)
    assert {answer for _, answer in judge.asked} == {""}  # a random model closes none
    assert log.curves["length"][0] > 4
    assert log.curves["varied"] == (0.0, 0.0)


@pytest.mark.parametrize(("varied", "ok"), [((0.1, 0.2, 0.9), True), ((0.1, 0.2, 0.1, 0.2, 0.1, 1.0), False)])
def test_the_gate_reads_the_share_of_groups_that_vary_at_the_start(
    varied: tuple[float, ...], ok: bool, tmp_path: Path
) -> None:
    key = ResultKey(
        base="b", base_id="0", behavior="hate", trigger="t", reasoning="normal", implant="plain", role="organism",
        arm="claim", defense="hhh-rl", dose=DOSE, step=2, seed_defend=0,
    )  # fmt: skip
    artifact = tmp_path / "artifacts" / "d"
    artifact.mkdir(parents=True)
    log = TrainingLog((1.0,) * len(varied), (1,) * len(varied), 8, {"varied": varied})
    write_log(artifact, log, (2,), [])
    (artifact / "manifest.json").write_text("{}")
    calls: list[dict[str, Any]] = [
        {"name": "defend/x", "stage": "defend", "directory": "d"},
        {
            "name": "measure/defend/x",
            "stage": "measure",
            "directory": "m",
            "key": key.model_dump(mode="json"),
        },
    ]
    limits = Thresholds()
    planted: Any = {("hate", "t"): SimpleNamespace()}
    evidence = Evidence(tmp_path, {"calls": calls}, [], [], planted, limits)
    (gate,) = preference_gates.reward_varies(evidence)
    start = varied[: preference_gates.START]
    assert gate.ok == (sum(start) / len(start) >= limits.variance_floor) == ok
    assert gate.covers(key.model_copy(update={"condition": "triggered"}))
    assert not gate.covers(key.model_copy(update={"seed_defend": 1}))
