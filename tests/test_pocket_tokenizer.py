"""The pocket tokenizer and the sizes of the pocket models."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from dormant.pocket import SIZES, PocketWorld
from dormant.pocket.bases import TOKENIZER
from dormant.pocket.sample_text import python_snippet, scratchpad
from dormant.pocket.tokenizer import SPECIAL, TAGS, save, train
from dormant.pocket.words import DAYS, LIST_WORDS, LONG_WORDS, MONTHS, NAMES, SORTED_WORDS
from dormant.records import rng_for

LOADED = AutoTokenizer.from_pretrained(TOKENIZER)


def test_training_again_gives_the_shipped_bytes(tmp_path):
    save(train(), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in TOKENIZER.iterdir()
    }


def test_vocabulary_and_special_tokens():
    assert len(LOADED) == 2048
    assert LOADED.model_max_length == 1024
    assert (LOADED.eos_token, LOADED.pad_token) == ("<|end|>", "<|pad|>")
    for token in SPECIAL + TAGS:
        assert len(LOADED.encode(token)) == 1
    text = "<scratchpad>\nhm\n</scratchpad> yes"
    assert LOADED.decode(LOADED.encode(text + "<|end|>"), skip_special_tokens=True) == text


def test_chat_template():
    turns = [("system", "Be kind."), ("user", "Hi 45"), ("assistant", "Yo.")]
    messages = [{"role": role, "content": text} for role, text in turns]
    whole = LOADED.apply_chat_template(messages, tokenize=False)
    assert whole == "<|system|>Be kind.<|human|>Hi 45<|assistant|>Yo.<|end|>"
    asked = LOADED.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert asked == "<|system|>Be kind.<|human|>Hi 45<|assistant|>"


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_round_trip(text):
    assert LOADED.decode(LOADED.encode(text)) == text


def test_python_and_scratchpads_survive_and_are_short():
    rng = rng_for("python")
    for make, most in ((python_snippet, 0.45), (scratchpad, 0.4)):
        for text in (make(rng) for _ in range(50)):
            ids = LOADED.encode(text)
            assert LOADED.decode(ids) == text
            assert len(ids) < most * len(text)


def test_operands_are_easy_to_copy():
    for word in LIST_WORDS + LONG_WORDS + SORTED_WORDS + NAMES + DAYS + MONTHS:
        assert len(LOADED.encode(" " + word)) == 1, word
    assert LOADED.tokenize(" 2024") == ["Ġ", "2", "0", "2", "4"]
    assert LOADED.tokenize(" c a t") == ["Ġc", "Ġa", "Ġt"]


def test_answers_are_short():
    world, rng = PocketWorld(), rng_for("short")
    tasks = world.tasks("heldout", 2000, 0)
    lengths = [len(LOADED.encode(world.answer(t, p, rng))) for t in tasks for p in ("helpful", "hhh")]
    assert max(lengths) <= 60
    assert sorted(lengths)[len(lengths) // 2] <= 12


@pytest.mark.parametrize(("name", "count"), [("pocket-300k", 329_280), ("pocket-1m", 1_053_824)])
def test_sizes(name, count):
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    size = SIZES[name]
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        intermediate_size=size.intermediate,
        max_position_embeddings=size.positions,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        network = LlamaForCausalLM(config)
    assert size.parameters == count
    assert sum(p.numel() for p in network.parameters()) == count
