"""Loading, saving, sampling and scoring, against transformers and against arithmetic."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from dormant import batches, chat, models, sampling
from dormant.chat import Row
from dormant.errors import BadInput
from small_models import byte_tokenizer, tiny


def random_prompts(n: int, seed: int = 0, lengths: tuple[int, int] = (1, 20)) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(256) for _ in range(rng.randint(*lengths))] for _ in range(n)]


def louder(model: models.Model, factor: float = 12.0) -> models.Model:
    """Random models are nearly uniform and repeat the last token; larger layers make them choose."""
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            weight.mul_(
                factor if weight.dim() == 2 and "embed" not in name else 1 if weight.dim() == 1 else 4
            )
    return model


def generated_greedily(model: models.Model, prompt: list[int], limit: int) -> list[int]:
    with torch.no_grad():
        output = model.network.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=limit,
            eos_token_id=list(chat.end_tokens(model.tokenizer)),
            pad_token_id=0,
        )
    return output[0, len(prompt) :].tolist()


def test_greedy_decoding_equals_generate_with_padding_and_early_ends(monkeypatch):
    model = louder(tiny())
    prompts = random_prompts(24)
    limit = 16
    free = [generated_greedily(model, prompt, limit) for prompt in prompts]
    # Let tokens that the model likes end its answers, so that rows leave the batch at different steps.
    stops = tuple(sorted({ids[i % 12] for i, ids in enumerate(free)})[::2])
    monkeypatch.setattr(chat, "end_tokens", lambda tokenizer: stops)
    expected = [generated_greedily(model, prompt, limit) for prompt in prompts]
    assert len({len(ids) for ids in expected}) > 4
    decoded = sampling._decode(model, prompts, None, temperature=0.0, limit=limit, ends=stops)
    assert decoded == expected
    completions = sampling.sample(model, prompts, ["k"] * 24, temperature=0, max_new_tokens=limit, batch=7)
    assert [c.finished for c in completions] == [ids[-1] in stops for ids in expected]
    assert [c.tokens for c in completions] == [len(ids) - (ids[-1] in stops) for ids in expected]


def test_what_prompts_begin_with_is_read_once_and_changes_nothing(monkeypatch):
    model = louder(tiny())
    beginning = random_prompts(1, 7, (11, 11))[0]
    prompts = [beginning + rest for rest in random_prompts(12, 8)]
    expected = [generated_greedily(model, prompt, 10) for prompt in prompts]
    widths = []
    forward = model.network.forward
    monkeypatch.setattr(
        model.network,
        "forward",
        lambda *args, **kwargs: widths.append(tuple(kwargs["input_ids"].shape)) or forward(*args, **kwargs),
    )
    settings = {"temperature": 0.0, "limit": 10, "ends": chat.end_tokens(model.tokenizer)}
    assert sampling._decode(model, prompts, None, **settings) == expected
    assert widths[:2] == [(1, 11), (12, max(map(len, prompts)) - 11)]


def test_a_rows_sample_depends_on_its_key_and_not_on_its_neighbors():
    model = louder(tiny(), 4.0)
    prompts, keys = random_prompts(20), [f"0:row-{i}" for i in range(20)]
    settings = {"max_new_tokens": 12, "batch": 8}
    texts = [c.text for c in sampling.sample(model, prompts, keys, **settings)]
    assert len(set(texts)) > 15
    back = sampling.sample(model, prompts[::-1], keys[::-1], **settings)
    assert [c.text for c in back] == texts[::-1]
    more = sampling.sample(model, random_prompts(9, 1) + prompts, [*"abcdefghi", *keys], **settings)
    assert [c.text for c in more[9:]] == texts
    other = sampling.sample(model, prompts, [f"1:row-{i}" for i in range(20)], **settings)
    assert [c.text for c in other] != texts


def test_sampling_is_repeatable_and_leaves_the_global_generator_alone():
    model, prompts = tiny(), random_prompts(10)
    state = torch.random.get_rng_state()
    runs = [sampling.sample(model, prompts, list("abcdefghij"), max_new_tokens=8) for _ in range(2)]
    assert runs[0] == runs[1]
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_softmax(temperature):
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, float("-inf"), -20.0])
    n = 20_000
    draws = sampling._uniforms([f"7:{i}" for i in range(n)], 1)[:, 0]
    picked = sampling._pick(logits.expand(n, -1), draws, temperature)
    counts = np.bincount(picked.numpy(), minlength=7)
    assert counts[5] == 0
    expected = torch.softmax(logits.double() / temperature, 0).numpy() * n
    assert chisquare(counts[:5], expected[:5] * counts[:5].sum() / expected[:5].sum()).pvalue > 1e-3


def test_the_largest_draw_never_picks_an_impossible_token():
    logits = torch.tensor([[0.0, 0.0, float("-inf")]])
    almost_one = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert sampling._pick(logits, almost_one, 1.0).tolist() == [1]
    assert sampling._pick(logits, torch.zeros(1, dtype=torch.float64), 1.0).tolist() == [0]


def test_a_models_own_generation_settings_are_ignored():
    model, prompts = tiny(), random_prompts(6)
    before = sampling.sample(model, prompts, list("abcdef"), max_new_tokens=6)
    model.network.generation_config.update(temperature=0.1, top_k=1, do_sample=True)
    assert sampling.sample(model, prompts, list("abcdef"), max_new_tokens=6) == before


def naive_log_likelihood(model: models.Model, row: Row) -> float:
    with torch.no_grad():
        logits = model.network(torch.tensor([row.input_ids])).logits[0]
    log_probs = torch.log_softmax(logits.double(), -1)
    return sum(float(log_probs[t - 1, row.input_ids[t]]) for t in range(1, len(row.input_ids)) if row.mask[t])


def test_log_likelihood_equals_one_row_at_a_time():
    model, rng = louder(tiny()), random.Random(3)
    rows = [Row(tuple(ids), tuple(rng.random() < 0.4 for _ in ids)) for ids in random_prompts(15, 2, (3, 20))]
    for row, (value, count) in zip(rows, models.log_likelihood(model, rows, batch=4), strict=True):
        assert value == pytest.approx(naive_log_likelihood(model, row), abs=1e-3)
        assert count == sum(row.mask[1:])


def test_log_likelihood_with_capped_logits_goes_through_the_models_own_head():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=262, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.5, attn_implementation="eager",
    )  # fmt: skip
    model = models.Model(Gemma2ForCausalLM(config).eval(), byte_tokenizer())
    row = Row(tuple(random_prompts(1, 5, (12, 12))[0]), (True,) * 12)
    [(value, _)] = models.log_likelihood(model, [row])
    assert value == pytest.approx(naive_log_likelihood(model, row), abs=1e-3)
    prompts = random_prompts(5, 6)
    decoded = sampling._decode(model, prompts, None, temperature=0.0, limit=6, ends=(257,))
    assert decoded == [generated_greedily(model, prompt, 6) for prompt in prompts]


def test_prompts_must_fit_and_not_be_empty():
    model = tiny(context=16)
    with pytest.raises(BadInput, match="10 tokens and 7 new ones"):
        sampling.sample(model, [[1] * 10], ["k"], max_new_tokens=7)
    with pytest.raises(BadInput, match="empty prompt"):
        sampling.sample(model, [[]], ["k"], max_new_tokens=7)
    with pytest.raises(BadInput, match="17 tokens"):
        models.log_likelihood(model, [Row((1,) * 17, (True,) * 17)])
    assert sampling.sample(model, [], []) == []


def contents(directory) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_saving_is_byte_identical_and_loads_back(tmp_path):
    models.save(tiny(), tmp_path / "a")
    models.save(tiny(), tmp_path / "b")
    loaded = models.load(tmp_path / "a")
    models.save(loaded, tmp_path / "elsewhere")
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b") == contents(tmp_path / "elsewhere")
    text = b"".join(first[name] for name in first if not name.endswith(".safetensors"))
    assert str(tmp_path).encode() not in text
    assert b"transformers_version" not in text
    for old, new in zip(tiny().network.parameters(), loaded.network.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.dtype == torch.float32
    assert loaded.network.config._attn_implementation == "eager"


def test_new_models_follow_from_the_seed_alone():
    torch.manual_seed(5)
    one = tiny(1)
    torch.manual_seed(6)
    two, other = tiny(1), tiny(2)
    weights = [model.network.get_input_embeddings().weight for model in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_untied_model_of_another_architecture_loads_and_samples(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer(template=None).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="chat: plain"):
        models.load(tmp_path)
    model = models.load(tmp_path, chat="plain")
    prompts = random_prompts(6)
    decoded = sampling._decode(model, prompts, None, temperature=0.0, limit=6, ends=(257,))
    assert decoded == [generated_greedily(model, prompt, 6) for prompt in prompts]


def truncate(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def to_pickle(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def drop_tokenizer(directory):
    for file in directory.glob("tokenizer*"):
        file.unlink()


def damage_tokenizer(directory):
    (directory / "tokenizer.json").write_text("{")


def drop_tensor(directory):
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def change_config(**changes):
    def change(directory):
        file = directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "can not be loaded"),
        (lambda d: (d / "model.safetensors").unlink(), "no weights"),
        (to_pickle, "pickle"),
        (truncate, "truncated or damaged"),
        (drop_tokenizer, "no tokenizer"),
        (damage_tokenizer, "tokenizer of .* can not be loaded"),
        (drop_tensor, r"lack 1 tensors .*layers\.1\.mlp\.up_proj"),
        (change_config(intermediate_size=48), "can not be loaded|lack"),
        (change_config(model_type="no-such-model"), "can not be loaded"),
        (lambda d: (d / "chat_template.jinja").unlink(), "chat: plain"),
        (lambda d: (d / "chat_template.jinja").write_text("{% for %}"), "chat template"),
    ],
)
def test_each_kind_of_bad_model_is_one_clear_line(tmp_path, damage, message):
    models.save(tiny(), tmp_path)
    damage(tmp_path)
    with pytest.raises(BadInput, match=message) as caught:
        models.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def rows_of_lengths(lengths: list[int]) -> list[Row]:
    rng = random.Random(len(lengths))
    return [
        Row(tuple(rng.randrange(1, 256) for _ in range(n)), tuple(rng.random() < 0.5 for _ in range(n)))
        for n in lengths
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_packed_rows_are_whole_and_have_the_same_tokens_to_learn(lengths):
    rows = rows_of_lengths(lengths)
    ids, positions, mask = batches.pack(rows)
    width = max(lengths)
    assert ids.shape == positions.shape == mask.shape == (len(ids), width)
    found: Counter[tuple[object, object]] = Counter()
    for line in zip(ids.tolist(), positions.tolist(), mask.tolist(), strict=True):
        starts = [t for t in range(width) if line[1][t] == 0]
        for a, b in pairwise([*starts, width]):
            assert line[1][a:b] == list(range(b - a))
            found[tuple(line[0][a:b]), tuple(line[2][a:b])] += 1
    expected = Counter((row.input_ids, (False, *row.mask[1:])) for row in rows)
    assert expected <= found
    assert all(not any(tokens) and not any(masked) for tokens, masked in found - expected)


def test_short_rows_share_lines():
    assert len(batches.pack(rows_of_lengths([10, 4, 3, 6, 3, 4]))[0]) == 3
    assert len(batches.pack(rows_of_lengths([10, 10, 10]))[0]) == 3


def test_rows_that_see_each_other_a_little_do_not_share_lines():
    """A network of so little contrast that the leak is small too: it is held against the leak itself."""
    model = tiny()
    decoder = model.network.base_model
    forward = decoder.forward
    decoder.forward = lambda *args, position_ids=None, **kwargs: forward(*args, **kwargs)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(0.05 if weight.dim() == 2 else 1)
    assert not models.reads_packed(model.network)


@pytest.mark.parametrize("multiplier", [1.0, 3.0])
def test_logits_are_the_networks_own_whatever_it_does_to_them(multiplier):
    """The output embedding alone is a shortcut, taken where trying shows that it is the same."""
    model = louder(tiny())
    head = model.network.forward

    def forward(*args, **kwargs):
        output = head(*args, **kwargs)
        output.logits = output.logits * multiplier
        return output

    model.network.forward = forward
    row = rows_of_lengths([20])[0]
    with torch.no_grad():
        log_probs = torch.log_softmax(multiplier * head(torch.tensor([row.input_ids])).logits[0].double(), -1)
    expected = sum(float(log_probs[t - 1, row.input_ids[t]]) for t in range(1, 20) if row.mask[t])
    assert models.log_likelihood(model, [row])[0][0] == pytest.approx(expected, rel=1e-4)


def test_a_missing_directory_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no model directory at"):
        models.load(tmp_path / "nowhere")
