"""A byte-level tokenizer and tiny random Llamas, for tests that need some model."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dormant.models import Model, new

POCKET = (
    "{% for m in messages %}{% if m.role == 'system' %}<|system|>{{ m.content }}"
    "{% elif m.role == 'user' %}<|human|>{{ m.content }}"
    "{% else %}<|assistant|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|human|>", "<|assistant|>", "<|stop|>")


def byte_tokenizer(template: str | None = "pocket") -> PreTrainedTokenizerFast:
    """One token a byte, and a few special ones: 262 in all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=POCKET if template == "pocket" else template,
    )


def tiny(seed: int = 0, *, hidden: int = 32, context: int = 128) -> Model:
    """A random two-layer Llama."""
    return new(
        byte_tokenizer(),
        seed=seed,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
    )
