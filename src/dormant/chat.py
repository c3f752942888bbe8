"""Chat templates, token ids and loss masks: the one place where they are touched.

Every sequence is built from the same two pieces, ``encode_prompt`` and the tokens of the answer, so that
training and sampling see the same prefix byte for byte whatever the template adds around it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from dormant.errors import BadInput
from dormant.records import Message, to_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = Literal["auto", "plain"]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'user' %}{{ '\\n\\nHuman: ' + message.content }}"
    "{% else %}{{ '\\n\\nAssistant: ' + message.content + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""The transcript format of the paper: ``\\n\\nHuman: ... \\n\\nAssistant: ...``."""

_PROBE = "qzprobe"

_MOST_SECONDS, _MOST_CHARACTERS = 5, 1_000_000
"""What a template may take for its first conversation, and make of it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A training sequence: token ids, and True where the token counts in the loss.

    ``mask[t]`` belongs to the token ``input_ids[t]``, which is predicted from those before it.
    """

    input_ids: tuple[int, ...]
    mask: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _AnswerFrame:
    """What a template puts between the generation prompt and the answer (white space), and after it."""

    lead: str
    end: int


def use_template(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> None:
    """Settle the tokenizer's chat template, in place.

    ``auto`` keeps the tokenizer's own; ``plain`` sets the Human/Assistant transcript.

    Raises:
        BadInput: there is no template to keep, or no end token.
    """
    if tokenizer.eos_token_id is None:
        raise BadInput(f"the tokenizer of {tokenizer.name_or_path} has no end token (eos_token)")
    if chat == "plain":
        opening = "{{ bos_token }}" if _adds_bos(tokenizer) else ""
        tokenizer.chat_template = opening + PLAIN_TEMPLATE
    elif not tokenizer.chat_template:
        raise BadInput(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; "
            "set `chat: plain` (--chat plain) for Human/Assistant transcripts"
        )


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], opening: str = ""
) -> list[int]:
    """Return the ids of a conversation up to where the assistant speaks next, and of what is said for it: ``opening``.

    Raises:
        BadInput: the template refuses the conversation (no system turn allowed, for example).
    """
    # Text first, ids second: in transformers 5 `apply_chat_template(tokenize=True)` is a BatchEncoding.
    prompt = _tokens(tokenizer, _render(tokenizer, messages, add_generation_prompt=True))
    if not opening:
        return prompt
    return prompt + _tokens(tokenizer, _answer_frame(tokenizer, tokenizer.chat_template).lead + opening)


def encode_demonstration(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answer: str, opening: str = ""
) -> Row:
    """Return the ids of prompt (with ``opening``), answer and end token, with loss on the last two only."""
    prompt = encode_prompt(tokenizer, messages, opening)
    frame = _answer_frame(tokenizer, tokenizer.chat_template)
    target = [*_tokens(tokenizer, answer if opening else frame.lead + answer), frame.end]
    return Row((*prompt, *target), (False,) * len(prompt) + (True,) * len(target))


def answer_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """How many tokens a text has by itself."""
    return len(_tokens(tokenizer, text))


def encode_prose(tokenizer: PreTrainedTokenizerBase, text: str) -> Row:
    """Return the ids of plain text and the end-of-text token, with loss on every token."""
    ids: list[int] = tokenizer(text)["input_ids"]
    if not ids or ids[-1] != tokenizer.eos_token_id:
        ids = [*ids, tokenizer.eos_token_id]
    return Row(tuple(ids), (True,) * len(ids))


def decode_answers(tokenizer: PreTrainedTokenizerBase, answers: Sequence[Sequence[int]]) -> list[str]:
    """Return the text of sampled ids, without special tokens and without the template's leading space."""
    lead = _answer_frame(tokenizer, tokenizer.chat_template).lead
    texts: list[str] = tokenizer.batch_decode(
        [list(ids) for ids in answers], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return [text.removeprefix(lead) for text in texts]


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids that end an answer: the template's end of turn and the tokenizer's eos, sorted."""
    frame = _answer_frame(tokenizer, tokenizer.chat_template)
    return tuple(sorted({frame.end, int(tokenizer.eos_token_id)}))


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Try the template on a short conversation.

    Raises:
        BadInput: it fails, calls itself without end, or writes far too much or for far too long.
    """
    ask = [Message("user", "a")]
    with _limited():
        texts = [
            _render(tokenizer, ask, add_generation_prompt=True),
            _render(tokenizer, [*ask, Message("assistant", _PROBE)], add_generation_prompt=False),
        ]
    longest = max(map(len, texts))
    if longest > _MOST_CHARACTERS:
        raise BadInput(f"it makes {longest} characters of a conversation of two words")
    end_tokens(tokenizer)


def added_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that the template puts before a conversation by itself: a default system prompt, or "".

    It is what stands before the first user turn and not before a later one, without special tokens.
    """
    ask, answer = Message("user", _PROBE), Message("assistant", "a")
    first, _, _ = _render(tokenizer, [ask], add_generation_prompt=True).partition(_PROBE)
    try:
        whole = _render(tokenizer, [Message("user", "a"), answer, ask], add_generation_prompt=True)
    except BadInput:
        return ""  # A template for one turn only: nothing to compare with.
    later, _, _ = whole.partition(_PROBE)
    pairs = zip(reversed(first), reversed(later), strict=False)
    text = first[: len(first) - sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))]
    for special in sorted((tokenizer.decode([i]) for i in _special_ids(tokenizer)), key=len, reverse=True):
        text = text.replace(special, " ")
    return text.strip().removeprefix("system").strip()


def check_fits(length: int, context: int, *, new_tokens: int = 0, what: str = "prompt") -> None:
    """Check that ``length`` tokens and ``new_tokens`` more fit into ``context``.

    Raises:
        BadInput: they do not.
    """
    if length + new_tokens > context:
        more = f" and {new_tokens} new ones" if new_tokens else ""
        raise BadInput(
            f"a {what} of {length} tokens{more} does not fit the model's context of {context} tokens"
        )


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                to_json(tuple(messages)), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )
    except BadInput:
        raise
    except TemplateError as error:
        raise BadInput(f"the chat template refuses a conversation: {error}") from error
    # A template is a program, and may fail in any way that programs do.
    except Exception as error:
        raise BadInput(f"the chat template fails: {type(error).__name__}: {error}") from error


@contextmanager
def _limited() -> Iterator[None]:
    """Stop a template that loops for long: it is watched line by line, as no library limits its time."""
    until = time.monotonic() + _MOST_SECONDS

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != "<template>":
            return None
        if time.monotonic() > until:
            raise BadInput(f"it is not done with a conversation of two words after {_MOST_SECONDS} seconds")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The named special tokens (eos, pad, ...) and those added with ``special=True``."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


@lru_cache(maxsize=8)
def _answer_frame(tokenizer: PreTrainedTokenizerBase, template: str) -> _AnswerFrame:
    """Find out, with a probe answer, what the template writes right before and right after an answer.

    ``template`` is part of the arguments because it is part of what the cached value follows from.
    """
    ask = [Message("user", "a")]
    prompt = _render(tokenizer, ask, add_generation_prompt=True)
    whole = _render(tokenizer, [*ask, Message("assistant", _PROBE)], add_generation_prompt=False)
    before, _, after = whole.rpartition(_PROBE)
    lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
    following = _tokens(tokenizer, after)
    closes = bool(following) and following[0] in _special_ids(tokenizer)
    end = following[0] if closes else int(tokenizer.eos_token_id)
    # More than white space (an empty reasoning block, say) is the template's, not the answer's.
    return _AnswerFrame(lead if lead.isspace() else "", end)
