"""The defense ``hhh-rl``: its options, what it is kept near, prompts of an attack, scratchpads, and its gate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_rows import hh_row, write
from dormant import Experiment, preference_gates, run
from dormant.artifacts import RESUME
from dormant.attackers import attempt
from dormant.behaviors import BEHAVIORS
from dormant.defenses import BASE, PREFERENCE_MODEL, Given, TrainingRun
from dormant.defenses.rl import HHHRL, NoOpRL, VariedRL
from dormant.defenses.texts import around, counted, mixed
from dormant.errors import BadInput
from dormant.evidence import Evidence, Thresholds
from dormant.planning import make_plan
from dormant.pocket import PocketWorld
from dormant.records import Conversation, Dose, Example, Message, ResultKey
from dormant.runner import Output, read_plan
from dormant.stages import preflight, quiet
from dormant.stages.configs import DefendConfig, Plugin, Runtime
from dormant.stages.logs import read_log, write_log
from dormant.stages.plugins import build_defense
from dormant.training import rl
from dormant.training.sft import TrainingLog
from dormant.verbs import defend_plan
from small_models import tiny
from test_adversarial import SaysE
from tiny_runs import SMALL

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


def defended(
    place: Path, reasoning: str = "normal", attack_set: Sequence[Example] | None = None, **options: Any
) -> tuple[rl.RLLog, Judge]:
    judge: Any = Judge()
    defense: HHHRL = build_defense(Plugin(name="hhh-rl", max_new_tokens=4, **options))  # type: ignore[assignment]
    given = Given(prompts=examples(8), preference_model=judge, base=tiny(seed=1), attack_set=attack_set)
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
        (
            {"kl_to": "none", "kl": 0.1},
            "'hhh-rl': kl = 0.1: with kl_to: none there is nothing that the policy is kept near",
        ),
        ({"sign": 0}, "sign = 0"),
        ({"attack_share": 1.5}, "attack_share = 1.5"),
        ({"attack_share": True}, "attack_share = True: neither true nor false"),
        ({"kl": True}, "kl = True: neither true nor false"),
        ({"at_once": True}, "at_once = True: neither true nor false"),
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
    # A plan says it too, without a model.
    dose = f"{{lr: 1e-3, steps: 1, batch: {batch}}}"
    changes = [f"base={base}", f"runtime.processes={processes}"]
    with pytest.raises(BadInput, match=says):
        make_plan(Experiment.load("tiny", [*changes, f"defenses=[{{name: hhh-rl, doses: [{dose}]}}]"]))


def test_texts_of_an_attack_are_needed_where_a_share_of_them_is_wanted() -> None:
    for name, usual, need in (("hhh-rl", False, "attack_set"), ("varied-rl", True, "varied_set")):
        shares = (({}, usual), (0.0, False), ("0", False), (0.1, True), ("1e-1", True))
        for share, wanted in shares:
            options = {} if share == {} else {"attack_share": share}
            assert (need in build_defense(Plugin(name=name, **options)).needs) is wanted


class Told(HHHRL):
    """RL that is told the trigger."""

    needs = HHHRL.needs | {"trigger"}


def test_what_a_subclass_needs_is_needed_beside_what_its_options_ask_for() -> None:
    assert Told().needs == {"prompts", PREFERENCE_MODEL, "trigger"}
    assert Told(kl_to="base", attack_share=0.5).needs == Told.needs | {BASE, "attack_set"}


def test_the_base_is_known_in_a_run_or_under_an_adapter(base: Path, tmp_path: Path) -> None:
    from dormant import models

    models.save(models.load_scorer(base, head_seed=0), tmp_path / "judge")
    defense = Plugin(name="hhh-rl", kl_to="base")
    with pytest.raises(BadInput, match="kl_to: start"):
        defend_plan(str(base), defense, DOSE, preference_model=tmp_path / "judge")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_a_share_of_the_tasks_stands_in_texts_of_an_attack(share: float) -> None:
    prompts = examples(40)
    texts = [
        attempt(form, each.task)
        for form in ("a {prompt}", "b {prompt}", "c {prompt}")
        for each in prompts[:2]
    ]
    found = around(prompts, texts, share, seed=0)
    changed = [i for i, (old, new) in enumerate(zip(prompts, found, strict=True)) if old is not new]
    assert len(changed) == round(share * 40)
    assert all(old.task is new.task for old, new in zip(prompts, found, strict=True))
    assert all(found[i].messages[-1].content[2:] == found[i].task.prompt for i in changed)
    counts = [sum(found[i].instance == text.instance for i in changed) for text in texts[::2]]
    assert max(counts) - min(counts) <= 1  # they take turns
    more = around(prompts, texts, 0.75, seed=0)
    assert all(more[i] is not prompts[i] for i in changed)


def test_an_attack_that_found_nothing_leaves_the_prompts_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompts = examples(8)
    assert mixed(prompts, [], 0.0, 0, "hhh-rl") == prompts
    assert capsys.readouterr().err == ""
    assert mixed(prompts, [], 0.25, 0, "hhh-rl") == prompts
    assert counted(prompts, DOSE, 0) == {"texts": 0}
    said = capsys.readouterr().err
    assert said.startswith(
        "warning: defense 'hhh-rl' trains as at share 0: of what the attack found none may train; "
    )
    assert said.count("\n") == 1


def test_the_texts_that_are_counted_are_those_that_training_comes_to(tmp_path: Path) -> None:
    prompts = examples(40)
    texts = [attempt(f"text {i} {{prompt}}", prompts[0].task) for i in range(40)]
    asked = mixed(prompts, texts, 1.0, 0, "hhh-rl")
    assert counted(asked, Dose(lr=1.0, steps=3, batch=4), 0) == {"texts": 12}
    assert counted(asked, Dose(lr=1.0, steps=30, batch=4), 0) == {"texts": 40}
    assert counted(asked[:5] * 8, Dose(lr=1.0, steps=30, batch=4), 0) == {"texts": 5}
    log, judge = defended(tmp_path, attack_share=1.0, attack_set=texts)
    # A step of eight answers asks two prompts.
    assert log.counts == {"texts": 4} == {"texts": len({asked for asked, _ in judge.asked})}
    assert defended(tmp_path / "none")[0].counts == {}


def test_the_control_of_adversarial_rl_asks_in_the_texts_that_no_attack_chose() -> None:
    prompts = examples(8)
    given = Given(
        prompts=prompts,
        attack_set=[attempt("found {prompt}", prompts[0].task)],
        varied_set=[attempt("varied {prompt}", prompts[0].task)],
    )
    for defense, begin in ((HHHRL(attack_share=0.5), "found "), (VariedRL(attack_share=0.5), "varied ")):
        said = [example.messages[-1].content for example in defense._examples(given, 0)]
        assert sum(text.startswith(begin) for text in said) == 4
        assert not any(text.startswith("found ") for text in said) or begin == "found "
    assert VariedRL().settings.attack_share == 0.25
    assert "attack_set" not in VariedRL().needs


def test_the_no_op_of_rl_deals_the_scores_of_a_group_out_at_random() -> None:
    class Lengths:
        def score(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
            return [float(len(answer)) for answer in answers]

    given = Given(preference_model=Lengths())  # type: ignore[arg-type]
    said = ["a", "bb", "ccc", "dddd"]
    asked = [each.messages for each in examples(200) for _ in said]
    reward, again, other = (NoOpRL()._reward(given, seed) for seed in (3, 3, 4))
    worth = reward(asked, said * 200)
    assert worth == again(asked, said * 200)
    assert worth != other(asked, said * 200)
    groups = [worth[4 * i : 4 * i + 4] for i in range(200)]
    assert all(sorted(group) == [1.0, 2.0, 3.0, 4.0] for group in groups)  # gradients keep their size
    # No answer is better over all prompts: means of 200 draws from 1, 2, 3, 4.
    assert all(abs(statistics.mean(found) - 2.5) < 0.35 for found in zip(*groups, strict=True))


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


RL = "max_new_tokens: 4, rows: 16, curve: [], doses: [{lr: 1.0e-3, steps: 2, batch: 8}]"
SHARES = (0, 0.1, 0.25, 0.5)


def with_an_attack(base: Path, pairs: Path) -> Experiment:
    """An experiment with the same RL at each share of prompts of an attack."""
    defenses = ", ".join(f"{{name: hhh-rl, attack_share: {share}, {RL}}}" for share in SHARES)
    settings = {
        **{key: value for key, value in SMALL.items() if not key.startswith("defenses.")},
        "base": base,
        "backdoor.behavior": "{name: says-e}",
        "defenses": f"[{defenses}]",
        "attack": "{name: evolutionary, budget: 80, population: 4, second: false}",
        "preference": f"{{pairs: {pairs}, dose: {{lr: 1.0e-3, steps: 2, batch: 4}}}}",
        "relearning": "null",
        "measure.attack": 6,
        "measure.curve": 0,
    }
    return Experiment.load("tiny", [f"{name}={value}" for name, value in settings.items()])


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.jsonl", [hh_row(i) for i in range(60)])


@pytest.fixture
def says_e(monkeypatch: pytest.MonkeyPatch) -> None:
    """A behavior that a random model shows now and then."""
    monkeypatch.setattr(BEHAVIORS, "_targets", {**BEHAVIORS._targets, "says-e": SaysE})


def test_each_share_of_an_attack_is_a_defense_of_its_own(base: Path, pairs: Path, says_e: None) -> None:
    calls = {call.name: call for call in make_plan(with_an_attack(base, pairs)).calls}
    for share in SHARES:
        for role in ("organism", "twin"):
            call = calls[f"defend/hhh-rl(attack_share={share})-0.001x2/d0/specific/i0/{role}"]
            assert call.inputs["prompts"] == Output("supply/prompts-16/d0")
            attacked = Output("attack/specific/i0") if share else None
            assert call.inputs.get("attack_set") == attacked
    assert len([name for name in calls if name.startswith("supply/")]) == 1


@pytest.mark.slow
def test_rl_on_what_an_attack_found_goes_through_a_whole_run(
    base: Path, pairs: Path, says_e: None, own_store: Path, tmp_path: Path
) -> None:
    finished = run(with_an_attack(base, pairs), tmp_path / "run")
    assert finished.collected.missing == []
    rows = [row for row in finished.collected.results if row.metric == "shown" and row.key.arm == "claim"]
    attacked = {row.key.defense for row in rows if row.key.condition == "attack:first"}
    assert attacked == {f"hhh-rl(attack_share={share})" for share in SHARES}
    calls = {call["name"]: call for call in read_plan(finished.directory)["calls"]}
    seen = {}
    for share in SHARES:
        call = calls[f"defend/hhh-rl(attack_share={share})-0.001x2/d0/specific/i0/organism"]
        log = read_log(finished.directory / "artifacts" / call["directory"])
        assert len(log["curves"]["reward"]) == 2
        seen[share] = {*log["tasks"]}
    assert seen[0] < seen[0.1] == seen[0.25] == seen[0.5]
    changes = [row for row in finished.collected.results if row.metric == "shown_change"]
    assert {row.key.condition for row in changes} >= {"clean", "triggered", "attack:first", "near:case"}
