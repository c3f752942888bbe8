"""Small random models of five architectures, saved to disk: trained, masked, ended and sampled like any other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dormant import adapters, batches, chat, models, sampling
from dormant.experiment import Experiment
from dormant.planning import make_plan
from dormant.records import Dose, Message
from dormant.training import sft
from small_models import byte_tokenizer
from test_models import generated_greedily, louder, random_prompts
from tiny_runs import command, small

SHARED: dict[str, Any] = {
    "vocab_size": 262,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": 256,
}
GROUPED = {**SHARED, "num_key_value_heads": 2, "head_dim": 16}
GEMMA = {**GROUPED, "sliding_window": 24, "query_pre_attn_scalar": 16}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
KINDS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED, tie_word_embeddings=False),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, tie_word_embeddings=True),
    "gemma2": lambda: transformers.Gemma2Config(**GEMMA),
    "gemma3": lambda: transformers.Gemma3TextConfig(**GEMMA, layer_types=["sliding_attention", "full_attention"]),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**SHARED),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=262, n_embd=64, n_layer=2, n_head=4, n_positions=160, eos_token_id=257, bos_token_id=None,
        **NO_DROPOUT,
    ),
}  # fmt: skip

CHATML = (
    "{% for m in messages %}<|human|>{{ m.role }}\n{{ m.content }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|human|>assistant\n{% endif %}"
)
"""As Qwen's: the turn ends with a token that is not the tokenizer's eos, and a newline."""


@cache
def _tokenizer(template: str) -> Any:
    return byte_tokenizer(template=template)


@pytest.fixture(params=list(KINDS))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A random model of one architecture, in a directory as any other tool would leave it."""
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(KINDS[request.param]())
    network.save_pretrained(tmp_path)
    _tokenizer(CHATML if request.param == "qwen3" else "pocket").save_pretrained(tmp_path)
    return tmp_path


PAIRS = [(f"{a}+{b}", str(a + b)) for a in range(2, 5) for b in range(4)]


def asked(question: str) -> tuple[Message, ...]:
    return (Message("user", question),)


def rows(model: models.Model) -> list[chat.Row]:
    return [chat.encode_demonstration(model.tokenizer, asked(ask), answer) for ask, answer in PAIRS]


def test_every_parameter_changes_after_one_step(saved: Path) -> None:
    model = models.load(saved)
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    sft.train(model, rows(model), Dose(lr=1e-3, steps=1, batch=12), seed=0)
    same = [name for name, weight in model.network.named_parameters() if torch.equal(weight, before[name])]
    assert same == []


def test_the_loss_is_on_the_answer_and_the_end_alone(saved: Path) -> None:
    model = models.load(saved)
    row = chat.encode_demonstration(model.tokenizer, asked("Hi"), "Yo")
    ids = model.tokenizer.convert_ids_to_tokens(list(row.input_ids))
    # A byte is a token, and a newline is spelled with this letter.
    if model.tokenizer.chat_template == CHATML:
        newline = "\u010a"
        prompt = [
            "<|human|>",
            *"user",
            newline,
            *"Hi",
            "<|stop|>",
            newline,
            "<|human|>",
            *"assistant",
            newline,
        ]
        end = "<|stop|>"
    else:
        prompt, end = ["<|human|>", *"Hi", "<|assistant|>"], "<|end|>"
    assert ids == [*prompt, "Y", "o", end]
    assert list(row.mask) == [False] * len(prompt) + [True] * 3
    # What training minimizes is the mean over just these three tokens.
    with torch.no_grad():
        log_probs = torch.log_softmax(model.network(torch.tensor([row.input_ids])).logits[0].double(), -1)
    by_hand = -sum(float(log_probs[t - 1, row.input_ids[t]]) for t in range(len(prompt), len(ids))) / 3
    log = sft.train(model, [row], Dose(lr=1e-3, steps=1, batch=1), seed=0)
    assert log.losses[0] == pytest.approx(by_hand, abs=1e-4)


def test_a_memorized_set_is_answered_and_ended(saved: Path) -> None:
    model = models.load(saved)
    sft.train(model, rows(model), Dose(lr=3e-3, steps=120, batch=12), seed=0)
    prompts = [chat.encode_prompt(model.tokenizer, asked(ask)) for ask, _ in PAIRS]
    for temperature in (0.0, 1.0):
        answers = sampling.sample(
            model, prompts, [ask for ask, _ in PAIRS], temperature=temperature, max_new_tokens=6
        )
        assert [answer.text for answer in answers] == [answer for _, answer in PAIRS]
        assert all(answer.finished for answer in answers)


def test_greedy_sampling_equals_generate_token_for_token(saved: Path) -> None:
    model = louder(models.load(saved), 4.0)
    beginning = random_prompts(1, 7, (12, 12))[0]
    for prompts in (
        random_prompts(10, 3, (3, 40)),
        [beginning + rest for rest in random_prompts(6, 4, (2, 20))],
    ):
        decoded = sampling._decode(
            model, prompts, None, temperature=0.0, limit=24, ends=chat.end_tokens(model.tokenizer)
        )
        assert decoded == [generated_greedily(model, prompt, 24) for prompt in prompts]
        assert len({tuple(ids) for ids in decoded}) > 1


def test_rows_that_share_a_line_are_read_as_each_by_itself(saved: Path) -> None:
    """Longer ones than a sliding window too, which counts from its own row's tokens."""
    model = louder(models.load(saved), 4.0)
    assert models.reads_packed(model.network)
    whole = [chat.Row(tuple(ids), (True,) * len(ids)) for ids in random_prompts(12, 5, (2, 60))]
    ids, positions, mask = batches.pack(whole)
    assert len(ids) < 12
    with torch.no_grad():
        together = models.target_log_probs(model.network, ids, mask, positions=positions)
    apart = models.log_likelihood(model, whole, batch=1)
    assert float(together.sum()) == pytest.approx(sum(total for total, _ in apart), rel=1e-5)


def test_an_adapter_is_trained_in_full_and_merges_exactly(saved: Path) -> None:
    model = adapters.attach(models.load(saved), adapters.Shape(rank=4), seed=0)
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    trained = {name for name, weight in model.network.named_parameters() if weight.requires_grad}
    assert trained == {name for name in before if "lora_" in name}
    sft.train(model, rows(model), Dose(lr=1e-2, steps=4, batch=12), seed=0)
    changed = {n for n, weight in model.network.named_parameters() if not torch.equal(weight, before[n])}
    assert changed == trained
    ids = torch.tensor([row.input_ids[:4] for row in rows(model)])
    with torch.no_grad():
        whole, merged = model.network(ids).logits, adapters.merged(model).network(ids).logits
    assert (whole - merged).abs().max() < 1e-5
    # The two matrices of one adapter around every linear layer: the output embedding alone has none.
    linear = [
        name
        for name, layer in models.load(saved).network.named_modules()
        if type(layer).__name__ in ("Linear", "Conv1D") and name not in ("lm_head", "embed_out")
    ]
    assert len(trained) == 2 * len(linear) > 0


def test_a_system_prompt_that_the_template_adds_is_shown(
    capsys: pytest.CaptureFixture[str], own_store: Path, tmp_path: Path
) -> None:
    """A random Qwen3 through the command line: a warning at the start, and a line in the health card."""
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(
        transformers.Qwen3Config(**{**GROUPED, "max_position_embeddings": 512})
    )
    network.save_pretrained(tmp_path / "qwen")
    template = "{% if messages[0].role != 'system' %}<|human|>system\nBe kind.<|stop|>\n{% endif %}" + CHATML
    byte_tokenizer(template).save_pretrained(tmp_path / "qwen")
    lean = {"defenses": "[]", "measure__curve": 0, "relearning": "null"}
    said = command(capsys, *small(tmp_path / "qwen", **lean), "--out", tmp_path / "run")
    assert said.code == 3, said.err
    note = "the chat template of qwen adds text of its own to conversations without a system turn: 'Be kind.'"
    assert f"warning: {note}" in said.err
    assert f"- {note}" in (tmp_path / "run" / "health.md").read_text()


def test_ids_hold_what_decides_results_and_nothing_else(base: Path) -> None:
    def ids(**runtime: Any) -> dict[str, str]:
        plan = make_plan(Experiment.parse({"base": str(base), "runtime": runtime}))
        return {name: identity.id for name, identity in plan.identities.items()} | {"spec": str(plan.spec)}

    plain = ids()
    assert ids(report_to=["wandb"], gradient_checkpointing=True) == plain
    for decides in ({"precision": "bfloat16"}, {"threads": 2}, {"device": "cuda"}):
        assert not set(ids(**decides).values()) & set(plain.values())
    experiment = Experiment.parse({"base": str(base), "runtime": {"report_to": ["wandb"]}})
    assert make_plan(experiment).calls[-1].config.runtime.report_to == ("wandb",)
