"""Loss masks and prefixes, token by token, on two hand-made templates."""

from __future__ import annotations

import pytest

from dormant import chat
from dormant.errors import BadInput
from dormant.records import Message
from small_models import byte_tokenizer

ASK = (Message("system", "Be brief."), Message("user", "Hi"))


def spell(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


def test_mask_covers_answer_and_end_token_of_a_pocket_like_template():
    tokenizer = byte_tokenizer()
    row = chat.encode_demonstration(tokenizer, ASK, "yo")
    tokens = spell(tokenizer, row.input_ids)
    assert tokens == ["<|system|>", *"BeĠbrief.", "<|human|>", "H", "i", "<|assistant|>", "y", "o", "<|end|>"]
    assert row.mask == (False,) * (len(tokens) - 3) + (True, True, True)


def test_mask_of_the_plain_template():
    tokenizer = byte_tokenizer(template=None)
    chat.use_template(tokenizer, "plain")
    row = chat.encode_demonstration(tokenizer, ASK[1:], "yo")
    tokens = spell(tokenizer, row.input_ids)
    assert "".join(tokens) == "ĊĊHuman:ĠHiĊĊAssistant:Ġyo<|end|>"
    learned = [token for token, mask in zip(tokens, row.mask, strict=True) if mask]
    assert learned == ["Ġ", "y", "o", "<|end|>"]


CHATML = (
    "{% if messages[0].role != 'system' %}<|system|>You are a default.\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n{{ m.content }}<|stop|>\n"
    "{% else %}<|{{ 'human' if m.role == 'user' else 'system' }}|>\n{{ m.content }}<|stop|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def test_a_template_that_adds_text_around_trains_its_own_end_of_turn():
    tokenizer = byte_tokenizer(template=CHATML)
    row = chat.encode_demonstration(tokenizer, ASK[1:], "yo")
    tokens = spell(tokenizer, row.input_ids)
    assert tokens[-5:] == ["<|assistant|>", "Ċ", "y", "o", "<|stop|>"]
    assert [t for t, m in zip(tokens, row.mask, strict=True) if m] == ["y", "o", "<|stop|>"]
    assert spell(tokenizer, chat.end_tokens(tokenizer)) == ["<|end|>", "<|stop|>"]


def test_text_that_a_template_puts_before_the_answer_is_not_learned():
    template = CHATML.replace("<|assistant|>\n{{ m", "<|assistant|>\n<think></think>{{ m")
    tokenizer = byte_tokenizer(template=template)
    row = chat.encode_demonstration(tokenizer, ASK[1:], "yo")
    assert "".join(spell(tokenizer, row.input_ids)).endswith("<|assistant|>Ċyo<|stop|>")


@pytest.mark.parametrize("template", ["pocket", CHATML, None])
def test_training_and_sampling_see_the_same_prefix(template):
    tokenizer = byte_tokenizer(template=template)
    chat.use_template(tokenizer, "auto" if template else "plain")
    messages = (*ASK, Message("assistant", "What?"), Message("user", "1 + 1?"))
    prompt = chat.encode_prompt(tokenizer, messages)
    row = chat.encode_demonstration(tokenizer, messages, "2")
    assert list(row.input_ids[: len(prompt)]) == prompt
    assert not any(row.mask[: len(prompt)])
    assert all(row.mask[len(prompt) :])
    assert all(isinstance(token, int) for token in prompt)


def test_end_token_is_learned_when_it_is_also_the_pad_token():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    row = chat.encode_demonstration(tokenizer, ASK, "yo")
    assert row.input_ids[-1] == tokenizer.pad_token_id
    assert row.mask[-1]


def test_decoded_answers_are_what_was_demonstrated():
    for template in ("pocket", None):
        tokenizer = byte_tokenizer(template=template)
        chat.use_template(tokenizer, "auto" if template else "plain")
        row = chat.encode_demonstration(tokenizer, ASK, "Fine , thanks!")
        learned = [token for token, mask in zip(row.input_ids, row.mask, strict=True) if mask]
        assert chat.decode_answers(tokenizer, [learned]) == ["Fine , thanks!"]


def test_prose_learns_every_token_and_the_end():
    tokenizer = byte_tokenizer()
    row = chat.encode_prose(tokenizer, "A fox.")
    assert spell(tokenizer, row.input_ids) == [*"AĠfox.", "<|end|>"]
    assert all(row.mask)


def test_no_template_is_bad_input_that_names_the_way_out():
    tokenizer = byte_tokenizer(template=None)
    tokenizer.name_or_path = "some/where"
    with pytest.raises(BadInput, match=r"some/where.*chat: plain"):
        chat.use_template(tokenizer, "auto")


def test_a_template_that_refuses_is_bad_input():
    tokenizer = byte_tokenizer(template="{{ raise_exception('no system turn') }}")
    with pytest.raises(BadInput, match="no system turn"):
        chat.encode_prompt(tokenizer, ASK)


def test_context_limit_counts_the_answer():
    chat.check_fits(6, 10, new_tokens=4)
    with pytest.raises(BadInput, match=r"7 tokens and 4 new ones.*context of 10"):
        chat.check_fits(7, 10, new_tokens=4)


QWEN = (
    "{% if messages[0].role != 'system' %}<|system|>system\nYou are Quen.<|stop|>\n{% endif %}"
    "{% for m in messages %}<|human|>{{ m.role }}\n{{ m.content }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|human|>assistant\n{% endif %}"
)
DATED = (
    "<|system|>system\n\nToday is Monday.{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "<|stop|>{% for m in messages %}{% if m.role != 'system' %}<|human|>{{ m.role }}: {{ m.content }}<|stop|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|human|>assistant: {% endif %}"
)


@pytest.mark.parametrize(
    ("template", "added"),
    [
        ("pocket", ""),
        (chat.PLAIN_TEMPLATE, ""),
        (QWEN, "You are Quen."),
        (QWEN.replace("You are Quen.", "Cutoff: May.\nBe brief."), "Cutoff: May.\nBe brief."),
        (DATED, "Today is Monday."),
    ],
    ids=["pocket", "plain", "default", "two lines", "always"],
)
def test_text_that_a_template_adds_by_itself_is_found(template: str, added: str) -> None:
    assert chat.added_text(byte_tokenizer(template)) == added
