"""Replies of a model that is asked, an endpoint's or one on this machine: each is kept in the user's cache.

They are known by all that was asked for them: who asks the same again asks nobody, and what was interrupted goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dormant import endpoint as endpoints
from dormant.artifacts import default_store
from dormant.endpoint import Endpoint, Reply
from dormant.errors import BadInput
from dormant.records import Conversation, Sampler, digest, to_json

CHUNK = 4
"""Batches of a model of one's own that are kept together."""

Keep = Callable[[str, Reply], None]
"""Is handed each reply, with the name of what was asked, as it comes."""


@dataclass(frozen=True)
class Wish:
    """How replies are to be drawn."""

    temperature: float
    max_new_tokens: int
    seed: int

    def name(self, model: str, conversation: Conversation) -> str:
        """All that a reply follows from."""
        return digest([model, to_json(conversation), self.temperature, self.max_new_tokens, self.seed])


class Kept:
    """Replies of one model in the user's cache, a line each, written as they come."""

    def __init__(self, model: str) -> None:
        self.path = default_store().root.with_name("replies") / f"{digest(model)[:16]}.jsonl"
        self.replies: dict[str, Reply] = dict(self._read())

    def add(self, name: str, reply: Reply) -> None:
        """Keep a reply for good."""
        self.replies[name] = reply
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name, **asdict(reply)}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise BadInput(f"the reply cache {self.path} can not be written: {error.strerror}") from None

    def _read(self) -> Iterator[tuple[str, Reply]]:
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            # A line that was cut by a kill is one reply less.
            try:
                row = json.loads(line)
                yield row["name"], Reply(row["text"], row["finished"])
            except (ValueError, KeyError, TypeError):
                continue


def ask_endpoint(endpoint: Endpoint, asked: Mapping[str, Conversation], wish: Wish, keep: Keep) -> None:
    """Ask an endpoint.

    Raises:
        BadInput: it gave up; what had come is kept, and the line says how much.
    """
    came = 0

    def count(name: str, reply: Reply) -> None:
        nonlocal came
        keep(name, reply)
        came += 1

    try:
        endpoints.ask(endpoint, asked, count, temperature=wish.temperature, max_tokens=wish.max_new_tokens)
    except BadInput as error:
        raise BadInput(
            f"{error}; {came:,} of {len(asked):,} replies came and are kept: the same command goes on from there"
        ) from None


def endpoint_name(endpoint: Endpoint) -> str:
    """What names an endpoint's model in the cache: its words."""
    return f"{endpoint.url.rstrip('/')} {endpoint.model}"


@dataclass(frozen=True)
class Own:
    """A model on this machine, and how it computes."""

    directory: Path
    chat: Literal["auto", "plain"]
    device: str
    precision: Literal["float32", "bfloat16"]
    batch: int = 64
    sampler: Sampler = "transformers"

    def name(self, identity: str) -> str:
        """What names it in the cache: its bytes' hash, how it is told and how it computes."""
        how = (self.sampler, self.batch, self.chat, self.precision, self.device)
        return f"{' '.join(map(str, how))}:{identity}"


def ask_own(own: Own, asked: Mapping[str, Conversation], wish: Wish, keep: Keep) -> None:
    """Ask a model on this machine, which the caller has prepared.  Draws follow from the names."""
    # Deferred: an endpoint needs no torch.
    from dormant import chat, models, sampling

    model = models.load(own.directory, chat=own.chat, device=own.device, dtype=own.precision)
    names: Sequence[str] = list(asked)
    step = CHUNK * own.batch
    with sampling.engine_for(own.sampler, model, own.directory) as engine:
        for start in range(0, len(names), step):
            some = names[start : start + step]
            completions = sampling.sample(
                model,
                [chat.encode_prompt(model.tokenizer, asked[name]) for name in some],
                some,
                temperature=wish.temperature,
                max_new_tokens=wish.max_new_tokens,
                batch=own.batch,
                engine=engine,
            )
            for name, completion in zip(some, completions, strict=True):
                keep(name, Reply(completion.text, completion.finished))
