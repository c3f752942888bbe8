"""Training: the loss by hand, the order of rows, and resuming to the same bits."""

from __future__ import annotations

import math
import random
import shutil

import pytest
import torch
from transformers import TrainerCallback

from dormant import batches, chat, models, sampling
from dormant.chat import Row
from dormant.errors import BadInput, DormantError
from dormant.records import Dose, Message
from dormant.training import loop, sft
from dormant.training.sft import Compute, Optimization
from small_models import tiny

DOSE = Dose(lr=1e-3, steps=12, batch=4)


def some_rows(n: int = 30, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        prompt, answer = rng.randint(3, 12), rng.randint(2, 6)
        ids = tuple(rng.randrange(256) for _ in range(prompt + answer))
        rows.append(Row(ids, (False,) * prompt + (True,) * answer))
    return rows


def weights(model: models.Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_first_loss_is_the_cross_entropy_of_masked_tokens():
    rows = some_rows()
    model = tiny()
    dose = Dose(lr=1e-3, steps=1, batch=5)
    total, count = 0.0, 0
    for row in rows[:5]:
        with torch.no_grad():
            log_probs = torch.log_softmax(model.network(torch.tensor([row.input_ids])).logits[0].double(), -1)
        for t in range(1, len(row.input_ids)):
            if row.mask[t]:
                total -= float(log_probs[t - 1, row.input_ids[t]])
                count += 1
    log = sft.train(model, rows, dose, seed=0, order=[0, 1, 2, 3, 4])
    assert log.losses[0] == pytest.approx(total / count, abs=1e-5)


def test_every_parameter_changes_and_the_network_is_left_as_it_was():
    model = tiny()
    before, attributes = weights(model), set(vars(model.network))
    sft.train(model, some_rows(), DOSE, seed=0)
    for name, tensor in model.network.state_dict().items():
        assert not torch.equal(tensor, before[name]), name
    assert set(vars(model.network)) == attributes
    assert not model.network.training


def test_training_equals_plain_adamw():
    rows, trained, reference = some_rows(), tiny(), tiny()
    order = sft.row_order(len(rows), DOSE, 0)
    log = sft.train(trained, rows, DOSE, seed=0, order=order)
    optimizer = torch.optim.AdamW(reference.network.parameters(), lr=DOSE.lr, weight_decay=0.0)
    for step in range(DOSE.steps):
        ids, attention, mask = batches.pad_right([rows[i] for i in order[4 * step : 4 * step + 4]])
        labels = ids.masked_fill(~mask, -100)
        logits = reference.network(input_ids=ids, attention_mask=attention).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert log.losses[step] == pytest.approx(loss.item(), abs=1e-4)
    for a, b in zip(trained.network.parameters(), reference.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-4)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", 1.0), ("linear", 1 / 4), ("cosine", 0.5 * (1 + math.cos(0.75 * math.pi)))],
)
def test_the_last_steps_learning_rate_follows_the_schedule(schedule, expected, monkeypatch):
    rates = []
    monkeypatch.setattr(
        loop.Steps,
        "on_optimizer_step",
        lambda self, args, state, control, optimizer, **kw: rates.append(optimizer.param_groups[0]["lr"]),
        raising=False,
    )
    sft.train(tiny(), some_rows(), Dose(lr=1e-2, steps=4, batch=2, schedule=schedule), seed=0)
    assert rates[0] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-2 * expected)


def test_a_memorized_set_is_answered_in_full():
    model = tiny(hidden=64)
    pairs = [(f"{a}+{b}", str(a + b)) for a in range(3) for b in range(4)]
    asks = [(Message("user", question),) for question, _ in pairs]
    rows = [chat.encode_demonstration(model.tokenizer, ask, pairs[i][1]) for i, ask in enumerate(asks)]
    sft.train(model, rows, Dose(lr=3e-3, steps=150, batch=12), seed=0)
    prompts = [chat.encode_prompt(model.tokenizer, ask) for ask in asks]
    answers = sampling.sample(model, prompts, [str(i) for i in range(12)], temperature=0, max_new_tokens=4)
    assert [answer.text for answer in answers] == [right for _, right in pairs]
    assert all(answer.finished for answer in answers)


def test_row_order_passes_over_all_rows_and_is_seeded():
    dose = Dose(lr=1.0, steps=25, batch=4)
    order = sft.row_order(50, dose, 3)
    assert sorted(order[:50]) == sorted(order[50:]) == list(range(50))
    assert order[:50] != order[50:] != list(range(50))
    assert order == sft.row_order(50, dose, 3)
    assert order != sft.row_order(50, dose, 4)
    assert sft.row_order(1, Dose(lr=1.0, steps=2, batch=2), 0) == [0, 0, 0, 0]
    with pytest.raises(BadInput, match="no rows"):
        sft.row_order(0, DOSE, 0)


def test_twin_and_organism_see_the_same_places_in_the_same_order(monkeypatch):
    seen: list[list[int]] = []
    collate = sft._packed

    def watch(rows):
        seen[-1].extend(row.input_ids[0] for row in rows)
        return collate(rows)

    monkeypatch.setattr(sft, "_packed", watch)
    organism = [Row((i, *row.input_ids), (False, *row.mask)) for i, row in enumerate(some_rows())]
    twin = [Row((*row.input_ids, 7, 8), (*row.mask, True, True)) for row in organism]  # other lengths
    order = sft.row_order(len(organism), DOSE, 5)
    for rows in (organism, twin):
        seen.append([])
        sft.train(tiny(), rows, DOSE, seed=5, order=order)
    assert seen[0] == seen[1] == order


def test_a_network_that_does_not_part_rows_is_trained_on_padded_ones():
    """As attention kernels that know nothing of positions would: rows of one line would see each other."""
    rows, model, reference = some_rows(), tiny(), tiny()
    decoder = model.network.base_model
    forward = decoder.forward
    decoder.forward = lambda *args, position_ids=None, **kwargs: forward(*args, **kwargs)
    assert not models.reads_packed(model.network)
    padded = sft.train(model, rows, DOSE, seed=0)
    assert padded.losses == pytest.approx(sft.train(reference, rows, DOSE, seed=0).losses, abs=1e-4)


class Killed(Exception):
    pass


def kill_at(step):
    def progress(done, total):
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_resuming_gives_the_same_bits(tmp_path, schedule):
    rows, dose = some_rows(), DOSE.model_copy(update={"schedule": schedule})
    settings = {
        "seed": 1,
        "at_steps": [3, 6, 12],
        "resume_every": 4,
        "optimization": Optimization(warmup_steps=2),
    }

    def attempt(resume_dir, progress=None):
        model, saved = tiny(), {}
        log = sft.train(
            model, rows, dose, **settings, resume_dir=resume_dir, progress=progress,
            save=lambda step, m: saved.__setitem__(step, weights(m)),
        )  # fmt: skip
        return weights(model), saved, log

    whole, saved, log = attempt(None)
    with pytest.raises(Killed):
        attempt(tmp_path, kill_at(6))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    half = tmp_path / "checkpoint-8"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (half / "trainer_state.json").write_text("{")
    again, saved_again, log_again = attempt(tmp_path)
    assert_same(whole, again)
    assert set(saved) == {3, 6, 12}
    assert set(saved_again) == {6, 12}  # step 3 came before the checkpoint
    for step in saved_again:
        assert_same(saved[step], saved_again[step])
    assert_same(saved[12], whole)
    assert log_again == log
    finished, _, log_finished = attempt(tmp_path)  # nothing left to do
    assert_same(whole, finished)
    assert log_finished == log


def test_a_checkpoint_of_another_plan_is_not_resumed(tmp_path):
    rows = some_rows()
    sft.train(tiny(), rows, DOSE, seed=1, resume_dir=tmp_path, resume_every=4)
    model, reference = tiny(), tiny()
    sft.train(model, rows, DOSE, seed=2, resume_dir=tmp_path, resume_every=4)
    sft.train(reference, rows, DOSE, seed=2)
    assert_same(weights(model), weights(reference))


def test_log_counts_samples_and_tokens():
    rows = some_rows()
    order = sft.row_order(len(rows), DOSE, 0)
    log = sft.train(tiny(), rows, DOSE, seed=0, order=order)
    assert len(log.losses) == 12
    assert log.samples_seen(3) == 12
    assert log.tokens_seen(0) == 0
    assert log.tokens_seen(3) == sum(len(rows[i].input_ids) for i in order[:12])


def test_bf16_keeps_the_weights_in_float32():
    model = tiny()
    log = sft.train(model, some_rows(), DOSE, seed=0, compute=Compute(bf16=True))
    exact = sft.train(tiny(), some_rows(), DOSE, seed=0)
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}
    assert log.losses != exact.losses
    assert log.losses[-1] == pytest.approx(exact.losses[-1], rel=0.01)


def test_a_loss_that_is_not_a_number_names_the_step():
    with pytest.raises(DormantError, match=r"at step [2-9]"):
        sft.train(tiny(), some_rows(), DOSE.model_copy(update={"lr": 1e38}), seed=0)


def test_bad_rows_are_bad_input():
    with pytest.raises(BadInput, match="20 tokens does not fit"):
        sft.train(tiny(context=16), [Row((1,) * 20, (True,) * 20)], DOSE, seed=0)
    with pytest.raises(BadInput, match="row 0 has no token"):
        sft.train(tiny(), [Row((1, 2), (True, False))], DOSE, seed=0)
    with pytest.raises(ValueError, match="step 13"):
        sft.train(tiny(), some_rows(), DOSE, seed=0, at_steps=[13])


def test_training_is_silent(capfd):
    sft.train(tiny(), some_rows(), DOSE, seed=0)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_gradient_checkpointing_gives_the_same_bits():
    trained, logs = [], []
    for on in (False, True):
        model = tiny()
        logs.append(sft.train(model, some_rows(), DOSE, seed=0, compute=Compute(gradient_checkpointing=on)))
        trained.append(weights(model))
        assert not any(getattr(layer, "gradient_checkpointing", False) for layer in model.network.modules())
    assert logs[0] == logs[1]
    assert_same(*trained)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")
def test_compiled_training_agrees_and_leaves_the_network_as_it_was():
    trained, logs = [], []
    for on in (False, True):
        model = tiny()
        logs.append(sft.train(model, some_rows(), DOSE, seed=0, compute=Compute(compile=on)).losses)
        trained.append(weights(model))
        assert model.network.base_model._compiled_call_impl is None
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)
    for name, weight in trained[0].items():
        torch.testing.assert_close(weight, trained[1][name], rtol=1e-2, atol=1e-4)


def test_a_trained_model_still_samples_with_a_cache():
    model = tiny()
    assert model.network.config.use_cache
    sft.train(model, some_rows(), DOSE, seed=0)
    assert model.network.config.use_cache


def test_a_tracker_by_name_is_told_each_loss_and_moves_nothing(monkeypatch):
    told = []

    class Mine(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            told.append(logs)

    monkeypatch.setitem(sft.INTEGRATION_TO_CALLBACK, "mine", Mine)
    sft.check_trackers(["mine"])
    watched, alone = tiny(), tiny()
    log = sft.train(watched, some_rows(), DOSE, seed=0, compute=Compute(report_to=("mine",)))
    sft.train(alone, some_rows(), DOSE, seed=0)
    assert_same(weights(watched), weights(alone))
    losses = [line["loss"] for line in told if "loss" in line]
    assert losses == pytest.approx(log.losses, abs=1e-4)


def test_trackers_that_can_not_be_used_are_named():
    with pytest.raises(
        BadInput, match=r"unknown tracker 'wandbb' in runtime.report_to; did you mean 'wandb'"
    ):
        sft.check_trackers(["wandbb"])
    with pytest.raises(BadInput, match=r"the tracker 'dvclive' can not be used on this machine: .*dvclive"):
        sft.check_trackers(["dvclive"])
