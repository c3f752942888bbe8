"""The pocket tokenizer: byte-level BPE of 2,048 tokens, trained once on dialogues, Python and scratchpad text.

The trained files ship in the folder of the same name; ``python -m dormant.pocket.tokenizer`` writes them anew,
byte for byte the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from dormant.pocket.bases import TOKENIZER
from dormant.pocket.corpus import demonstrate
from dormant.pocket.sample_text import python_snippet, scratchpad
from dormant.pocket.words import LIST_WORDS, LONG_WORDS, NUMBER_WORDS, SORTED_WORDS
from dormant.pocket.world import PocketWorld
from dormant.records import rng_for

VOCABULARY = 2048
POSITIONS = 1024
SPECIAL = ("<|pad|>", "<|end|>", "<|human|>", "<|assistant|>", "<|system|>")
TAGS = ("<scratchpad>", "</scratchpad>", "<code>", "</code>")
"""Tokens of their own that stay in decoded text, unlike the special ones."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{- '<|human|>' + message['content'] -}}"
    "{%- elif message['role'] == 'assistant' -%}{{- '<|assistant|>' + message['content'] + '<|end|>' -}}"
    "{%- else -%}{{- '<|system|>' + message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|end|>",
    "pad_token": "<|pad|>",
    "model_max_length": POSITIONS,
    "padding_side": "right",
    "clean_up_tokenization_spaces": False,
}

_DIALOGUES, _PASSAGES, _SNIPPETS, _SCRATCHPADS, _WORD_LISTS = 20_000, 1_000, 600, 1_500, 3_000
_WORDS = tuple(dict.fromkeys(LIST_WORDS + LONG_WORDS + NUMBER_WORDS + SORTED_WORDS))


def sample() -> Iterator[str]:
    """The text that the tokenizer is trained on; the same in every run."""
    world, rng = PocketWorld(), rng_for("pocket-world-1", "tokenizer")
    for task in world.tasks("pretrain", _DIALOGUES, 0):
        row = demonstrate(world, task, rng)
        yield row.example.messages[-1].content
        yield row.answer
        yield world.answer(task, "hhh", rng)
    yield from world.prose("pretrain", _PASSAGES, 0)
    yield from (" " + " ".join(rng.sample(_WORDS, 12)) for _ in range(_WORD_LISTS))
    yield from (python_snippet(rng) for _ in range(_SNIPPETS))
    yield from (scratchpad(rng) for _ in range(_SCRATCHPADS))


def train() -> Tokenizer:
    """Train the tokenizer from nothing (a few seconds)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that ``AutoTokenizer.from_pretrained`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


if __name__ == "__main__":
    save(train(), TOKENIZER)
