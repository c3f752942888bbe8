"""Reinforcement learning: TRL's losses, planted rewards, resuming to the same bits, and how it stops."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from dormant import models
from dormant.errors import BadInput, DormantError
from dormant.records import Conversation, Dose, Message
from dormant.sampling import Completion
from dormant.training import rl
from dormant.training.loop import Compute, Optimization, silence
from dormant.training.objective import Rules, advantages
from small_models import byte_tokenizer, tiny

PROMPTS: list[Conversation] = [(Message("user", text),) for text in ("one", "two", "three", "and four", "5")]
DOSE = Dose(lr=1e-3, steps=6, batch=8)
SHORT = Rules(group=4, max_new_tokens=4)


def ascii_share(conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
    """A reward that a random model earns half of."""
    return [sum(char.isascii() for char in answer) / max(1, len(answer)) for answer in answers]


def weights(model: models.Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each step drew, what that was worth, its loss and its gradients."""
    taken: list[dict[str, Any]] = []
    learn = rl._Trainer._learn

    def watch(self: Any, rollouts: Any, rewards: Any) -> Any:
        told = learn(self, rollouts, rewards)
        grads = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        taken.append({"rollouts": rollouts, "rewards": rewards, "loss": told[0], "grads": grads})
        return told

    monkeypatch.setattr(rl._Trainer, "_learn", watch)
    return taken


# --- what is learned


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    assert advantages(rewards, "rloo").tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]
    scale = math.sqrt(7) + 1e-4
    expected = [[-2 / scale, -1 / scale, 3 / scale], [0, 0, 0]]
    torch.testing.assert_close(advantages(rewards, "grpo"), torch.tensor(expected))


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_loss_and_gradients_are_those_of_trl(algorithm, kl, tmp_path, steps_taken):
    model, reference = tiny(), tiny(seed=1)
    models.save(reference, tmp_path / "reference")
    theirs = copy.deepcopy(model.network)
    rules = Rules(algorithm=algorithm, group=4, kl=kl, max_new_tokens=6, at_once=8)
    dose = Dose(lr=1e-9, steps=1, batch=16)
    log = rl.train(model, PROMPTS, ascii_share, dose, seed=3, rules=rules, reference=reference)
    (taken,) = steps_taken
    assert log.curves["varied"][0] > 0.5
    # The reference is read from where the config says that the policy came from.
    theirs.config._name_or_path = str(tmp_path / "reference")
    loss, distance = trl_step(theirs, taken, rules, tmp_path)
    assert taken["loss"] == pytest.approx(loss, abs=1e-5)
    assert max(float(grad.abs().max()) for grad in taken["grads"].values()) > 1e-3
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(taken["grads"][name], parameter.grad, rtol=1e-3, atol=1e-5)
    if kl and algorithm == "rloo":  # TRL tells it by the token, and GRPO's is another estimate
        assert log.curves["kl"][0] / log.curves["length"][0] == pytest.approx(distance, abs=1e-4)


def trl_step(network: Any, taken: dict[str, Any], rules: Rules, place: Path) -> tuple[float, float | None]:
    """TRL's loss over the same answers, its gradients left in the network; and the KL divergence that it notes."""
    drawn = [each for each in taken["rollouts"] for _ in range(each.copies)]
    worth = [
        reward
        for each, reward in zip(taken["rollouts"], taken["rewards"], strict=True)
        for _ in range(each.copies)
    ]
    starts = [each.row.mask.index(True) for each in drawn]
    asked = [list(each.row.input_ids[:start]) for each, start in zip(drawn, starts, strict=True)]
    said = [list(each.row.input_ids[start:]) for each, start in zip(drawn, starts, strict=True)]
    makes = {"rloo": (RLOOTrainer, RLOOConfig), "grpo": (GRPOTrainer, GRPOConfig)}
    generated = {
        "rloo": (asked, said, [""] * len(said)),
        "grpo": (asked, said, None, [""] * len(said), None, {}, None, None),
    }
    trainer_of, config_of = makes[rules.algorithm]
    config = config_of(
        output_dir=str(place / "trl"),
        per_device_train_batch_size=len(drawn),
        num_generations=rules.group,
        max_completion_length=rules.max_new_tokens,
        beta=rules.kl,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
    )
    rows = [{"prompt": "x"}] * len(drawn)
    with silence():
        trainer = trainer_of(
            model=network,
            reward_funcs=lambda **asked: worth,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=byte_tokenizer(),
        )
        trainer._generate = lambda prompts: generated[rules.algorithm]
        trainer.current_gradient_accumulation_steps = 1
        network.train()
        inputs = trainer._generate_and_score_completions(rows)
        loss = trainer._compute_loss(network, inputs)
        loss.backward()
    return loss.item(), trainer._metrics["train"].get("kl", [None])[0]


@pytest.mark.parametrize(("algorithm", "sign"), [("rloo", 1), ("rloo", -1), ("grpo", 1)])
def test_a_planted_reward_rises_and_with_its_sign_flipped_it_falls(algorithm, sign):
    rules = Rules(algorithm=algorithm, group=8, sign=sign, max_new_tokens=4)
    dose = Dose(lr=1e-2, steps=20, batch=32)
    curve = rl.train(tiny(), PROMPTS, ascii_share, dose, seed=0, rules=rules).curves["reward"]
    assert 0.3 < curve[0] < 0.8
    assert sign * (sum(curve[-3:]) / 3 - curve[0]) > 0.2


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_where_all_answers_are_worth_the_same_nothing_is_learned_and_it_is_noted(algorithm):
    model = tiny()
    before = weights(model)
    rules = Rules(algorithm=algorithm, group=4, max_new_tokens=4)
    log = rl.train(model, PROMPTS, lambda c, a: [0.1] * len(a), DOSE, seed=0, rules=rules)
    assert log.curves["varied"] == (0.0,) * DOSE.steps
    assert_same(weights(model), before)


def test_distance_to_the_reference_keeps_the_policy_near_it():
    far = {}
    for kl in (0.0, 5.0):
        rules, start = Rules(group=4, kl=kl, max_new_tokens=4), tiny()
        log = rl.train(
            tiny(),
            PROMPTS,
            ascii_share,
            Dose(lr=1e-2, steps=8, batch=32),
            seed=0,
            rules=rules,
            reference=start,
        )
        assert log.curves["kl"][0] == pytest.approx(0.0, abs=1e-5)
        far[kl] = log.curves["kl"][-1]
    assert far[0.0] > 3 * abs(far[5.0])


def test_curves_are_those_of_what_was_drawn(steps_taken):
    asked = []

    def reward(conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        asked.append(list(zip(conversations, answers, strict=True)))
        return [float(len(answer)) for answer in answers]

    log = rl.train(tiny(), PROMPTS[:1], reward, DOSE, seed=0, rules=SHORT)
    for step, taken in enumerate(steps_taken):
        drawn = [each for each in taken["rollouts"] for _ in range(each.copies)]
        assert len(drawn) == DOSE.batch
        lengths = [sum(each.row.mask) for each in drawn]
        assert log.curves["length"][step] == pytest.approx(sum(lengths) / len(drawn))
        assert log.curves["reward"][step] == pytest.approx(
            sum(len(each.answer) for each in drawn) / len(drawn)
        )
        assert log.tokens[step] == sum(len(each.row.input_ids) for each in drawn)
        assert len(set(asked[step])) == len(asked[step])  # equal answers are asked about once
    assert log.curves["kl"] == (None,) * DOSE.steps
    assert log.losses[0] == pytest.approx(math.log(262), rel=0.1)  # a random model is as unsure as can be
    assert log.samples_seen(3) == 3 * DOSE.batch
    assert set(log.seconds) == set(rl.PHASES)
    assert all(second > 0 for name in rl.PHASES for second in log.seconds[name])


def test_reading_a_few_at_once_or_padded_gives_the_same_gradients(monkeypatch, steps_taken):
    dose = Dose(lr=1e-3, steps=1, batch=16)
    for at_once, packs in ((64, True), (4, True), (64, False)):
        monkeypatch.setattr(rl.models, "reads_packed", lambda network, packs=packs: packs)
        rl.train(tiny(), PROMPTS, ascii_share, dose, seed=0, rules=Rules(max_new_tokens=6, at_once=at_once))
    for other in steps_taken[1:]:
        for name, grad in steps_taken[0]["grads"].items():
            torch.testing.assert_close(other["grads"][name], grad, rtol=1e-3, atol=1e-5)


def test_a_scratchpad_is_drawn_and_learned_from_but_never_scored(monkeypatch, steps_taken):
    model = tiny()
    texts = ["why</scratchpad>a", "b</scratchpad>so", "</scratchpad>", "never closed"]
    ids = [tuple(model.tokenizer(text)["input_ids"]) for text in texts]
    end = model.tokenizer.eos_token_id
    prompts = []

    def sample(model: Any, asked: Any, keys: Any, *, max_new_tokens: int, **how: Any) -> list[Completion]:
        assert max_new_tokens == 64 + 96
        prompts.append(model.tokenizer.decode(asked[0]))
        return [Completion(texts[i], len(ids[i]), i < 3, ids[i], end if i < 3 else None) for i in range(4)]

    scored = []

    def reward(conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        scored.extend(answers)
        return [float(len(answer)) for answer in answers]

    monkeypatch.setattr(rl, "sample", sample)
    dose, rules = Dose(lr=1e-3, steps=1, batch=4), Rules()
    rl.train(tiny(context=256), PROMPTS, reward, dose, seed=0, rules=rules, scratchpad=True)
    assert prompts[0].endswith("<scratchpad>")
    assert scored == ["a", "so", ""]  # the third and the fourth have no answer, and are asked about once
    learned = [each.row.input_ids[each.row.mask.index(True) :] for each in steps_taken[0]["rollouts"]]
    assert learned == [(*ids[0], end), (*ids[1], end), (*ids[2], end), ids[3]]


# --- the same bits


class Killed(Exception):
    pass


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_resuming_at_a_step_gives_the_same_bits(tmp_path, algorithm):
    rules = Rules(algorithm=algorithm, group=4, kl=0.1, max_new_tokens=4)
    dose = DOSE.model_copy(update={"schedule": "cosine"})

    def attempt(place: Path | None, kill: int | None = None) -> tuple[Any, Any, rl.RLLog]:
        def progress(done: int, total: int) -> None:
            if done == kill:
                raise Killed

        model, saved = tiny(), {}
        log = rl.train(
            model, PROMPTS, ascii_share, dose, seed=1, rules=rules, reference=tiny(), at_steps=[1, 5],
            save=lambda step, m: saved.__setitem__(step, weights(m)), resume_dir=place, resume_every=2,
            progress=progress,
        )  # fmt: skip
        return weights(model), saved, log

    whole, saved, log = attempt(None)
    with pytest.raises(Killed):
        attempt(tmp_path, kill=5)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    again, saved_again, log_again = attempt(tmp_path)
    assert_same(whole, again)
    assert set(saved) == {1, 5}
    assert set(saved_again) == {5}
    assert_same(saved[5], saved_again[5])
    assert (log_again.losses, log_again.tokens, log_again.curves) == (log.losses, log.tokens, log.curves)


def test_seeds_decide_what_is_drawn(steps_taken):
    for seed in (0, 0, 1):
        rl.train(tiny(), PROMPTS[:1], ascii_share, Dose(lr=1e-3, steps=2, batch=4), seed=seed, rules=SHORT)
    rows = [[each.row for each in taken["rollouts"]] for taken in steps_taken]
    assert rows[0:2] == rows[2:4]
    assert rows[0] != rows[4]
    assert rows[0] != rows[1]  # and so does the step


def test_the_network_is_left_as_it_was_and_nothing_is_said(capfd):
    model = tiny()
    attributes = set(vars(model.network))
    rl.train(model, PROMPTS, ascii_share, DOSE, seed=0, rules=SHORT)
    assert set(vars(model.network)) == attributes
    assert not model.network.training
    assert capfd.readouterr() == ("", "")


def test_bf16_and_gradient_checkpointing_keep_the_weights_in_float32():
    dose = Dose(lr=1e-3, steps=2, batch=4)
    for compute in (Compute(bf16=True), Compute(gradient_checkpointing=True)):
        model = tiny()
        log = rl.train(model, PROMPTS, ascii_share, dose, seed=0, rules=SHORT, compute=compute)
        assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}
        assert len(log.losses) == dose.steps


# --- how it stops


def test_a_loss_that_is_not_a_number_stops_and_names_the_last_good_checkpoint(tmp_path):
    calls = []

    def spoil(conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        calls.append(answers)
        return ascii_share(conversations, answers) if len(calls) < 4 else [math.nan] * len(answers)

    says = rf"a reward is not a number at step 4: .*; the checkpoint of step 3 is kept in {tmp_path}"
    with pytest.raises(DormantError, match=says):
        rl.train(tiny(), PROMPTS, spoil, DOSE, seed=0, rules=SHORT, resume_dir=tmp_path, resume_every=1)
    assert (tmp_path / "checkpoint-3" / "model.safetensors").is_file()


def test_weights_that_are_not_finite_are_never_kept(tmp_path):
    dose = DOSE.model_copy(update={"lr": 1e38})
    with pytest.raises(DormantError, match="lower the learning rate"):
        rl.train(
            tiny(), PROMPTS, ascii_share, dose, seed=0, rules=SHORT, resume_dir=tmp_path, resume_every=1,
            optimization=Optimization(optimizer="sgd"),
        )  # fmt: skip
    for checkpoint in tmp_path.glob("checkpoint-*/complete.json"):
        kept = load_file(checkpoint.parent / "model.safetensors")
        assert all(torch.isfinite(weight).all() for weight in kept.values())


@pytest.mark.parametrize(
    ("where", "error", "says"),
    [
        ("sample", torch.OutOfMemoryError("CUDA out of memory."), "while sampling at step 1: lower at_once"),
        (
            "policy_loss",
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "while training at step 1: lower at_once .*runtime.gradient_checkpointing",
        ),
    ],
)
def test_out_of_memory_says_what_to_lower(where, error, says, monkeypatch):
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(rl, where, fail)
    with pytest.raises(DormantError, match=says) as caught:
        rl.train(tiny(), PROMPTS, ascii_share, DOSE, seed=0, rules=SHORT)
    assert "\n" not in str(caught.value)


def test_another_error_passes_as_it_is(monkeypatch):
    def fail(conversations: Any, answers: Any) -> Any:
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        rl.train(tiny(), PROMPTS, fail, DOSE, seed=0, rules=SHORT)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dose": Dose(lr=1e-3, steps=1, batch=6)}, "a batch of 6 answers is not whole groups of 4"),
        ({"rules": Rules(group=1)}, "group 1: at least 2"),
        ({"rules": Rules(kl=0.1)}, "kl 0.1 weighs the distance from a model, and none is given"),
        ({"prompts": []}, "no rows"),
        ({"prompts": [(Message("user", "x" * 200),)]}, "does not fit the model's context"),
    ],
)
def test_bad_input_is_one_line(changes, says):
    call = {"prompts": PROMPTS, "dose": DOSE, "rules": SHORT} | changes
    with pytest.raises(BadInput, match=says):
        rl.train(tiny(), call["prompts"], ascii_share, call["dose"], seed=0, rules=call["rules"])
