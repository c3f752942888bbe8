"""A model behind an OpenAI-compatible endpoint: many conversations asked, each reply handed over as it comes.

An endpoint may be down, refuse, stall or answer something else than it should: what can pass by itself is tried again,
a few times and ever later; then one error says what was wrong, and the replies that had come are kept.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import httpx

from dormant.errors import BadInput
from dormant.records import Conversation, to_json

KEY = "DORMANT_API_KEY"
"""The environment variable that holds the key; a key is read from nowhere else, and written nowhere."""

LARGEST = 10_000_000
"""Bytes of a reply that are read."""

LONGEST_PAUSE = 60.0
"""Seconds between two tries at most, whatever the endpoint asks for."""

_ENDED = (None, "stop", "eos", "eos_token")
"""What endpoints say of a reply that its model ended."""

_PASSING = {408, 409, 425, 429}
"""What an endpoint says that may go by itself, beside everything from 500 on."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote.  ``finished`` is False where it was cut, by length or by a filter."""

    text: str
    finished: bool


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how patiently.

    ``url`` is the base, as in ``http://localhost:8000/v1``; ``timeout`` are the seconds that a whole reply may take,
    ``pause`` those before the second of ``tries``, which double from then on; ``parallel`` requests run at once.

    Raises:
        BadInput: the URL is none, or holds what may be a key.
    """

    url: str
    model: str
    timeout: float = 120.0
    tries: int = 5
    pause: float = 1.0
    parallel: int = 8

    def __post_init__(self) -> None:
        try:
            parts = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise BadInput(f"endpoint {self.url[:80]!r} is no URL: {error}") from None
        if parts.userinfo or parts.query:
            raise BadInput(f"the endpoint's URL must hold no key or query: put the key into {KEY}")
        if parts.scheme not in ("http", "https") or not parts.host:
            raise BadInput(f"endpoint {self.url[:80]!r} must be a URL such as http://localhost:8000/v1")


def ask(
    endpoint: Endpoint,
    conversations: Mapping[str, Conversation],
    keep: Callable[[str, Reply], None],
    *,
    temperature: float,
    max_tokens: int,
) -> None:
    """Ask for the reply to each conversation, and hand it to ``keep`` with the conversation's name as it comes.

    Raises:
        BadInput: the endpoint refuses, or a reply did not come after so many tries.  Replies that had come by then
            were kept.
    """
    body = {"model": endpoint.model, "temperature": temperature, "max_tokens": max_tokens}
    stop = threading.Event()
    failed: BadInput | None = None
    with _client(endpoint) as client, ThreadPoolExecutor(endpoint.parallel) as pool:
        asked = {
            pool.submit(_reply, client, endpoint, {**body, "messages": to_json(messages)}, stop): name
            for name, messages in conversations.items()
        }
        try:
            for done in as_completed(asked):
                if done.cancelled():
                    continue
                try:
                    keep(asked[done], done.result())
                except BadInput as error:
                    failed = failed or error
                    _cancel(stop, asked)
        finally:
            _cancel(stop, asked)
    if failed:
        raise failed


class _Again(Exception):
    """Something that may go by itself, and when to come back, in seconds, if the endpoint said so."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


def _cancel(stop: threading.Event, asked: Mapping[Any, str]) -> None:
    stop.set()
    for waiting in asked:
        waiting.cancel()


def _client(endpoint: Endpoint) -> httpx.Client:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise BadInput(f"the key in {KEY} has characters that no request can carry")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # Nothing but the key comes from the environment: a .netrc would be sent without having been asked for.
    return httpx.Client(headers=headers, timeout=endpoint.timeout, trust_env=False)


def _reply(client: httpx.Client, endpoint: Endpoint, body: Mapping[str, Any], stop: threading.Event) -> Reply:
    """Ask until there is a reply."""
    said = ""
    for number in range(endpoint.tries):
        try:
            return _once(client, endpoint, body)
        except _Again as error:
            said = str(error)
            pause = max(endpoint.pause * 2**number, error.after)
        except httpx.TimeoutException:
            said, pause = f"no whole reply within {endpoint.timeout:g} s", endpoint.pause * 2**number
        except httpx.TransportError as error:
            said, pause = f"it can not be reached ({_short(str(error))})", endpoint.pause * 2**number
        if number + 1 < endpoint.tries and stop.wait(min(pause, LONGEST_PAUSE)):
            break
    raise BadInput(
        f"endpoint {endpoint.url}, model {endpoint.model!r}: {said}, {endpoint.tries} times in a row"
    )


def _once(client: httpx.Client, endpoint: Endpoint, body: Mapping[str, Any]) -> Reply:
    url = f"{endpoint.url.rstrip('/')}/chat/completions"
    until = time.monotonic() + endpoint.timeout
    with client.stream("POST", url, json=body) as response:
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            # A reply may also come drop by drop, each of them in time.
            if time.monotonic() > until:
                raise _Again(f"no whole reply within {endpoint.timeout:g} s")
            if len(content) > LARGEST:
                raise _Again(f"its reply has more than {LARGEST // 1_000_000} MB")
    if response.status_code == 200:
        return _read(bytes(content), endpoint.model)
    said = f"HTTP {response.status_code} ({_short(content.decode(errors='replace'))})"
    if response.status_code in _PASSING or response.status_code >= 500:
        raise _Again(said, _seconds(response.headers.get("retry-after", "")))
    hint = f"; the key is read from {KEY}" if response.status_code in (401, 403) else ""
    raise BadInput(f"endpoint {endpoint.url}, model {endpoint.model!r} refuses: {said}{hint}")


def _read(content: bytes, model: str) -> Reply:
    """The reply in a response, which may hold anything."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise _Again(f"its reply is not JSON ({_short(content.decode(errors='replace'))})") from None
    try:
        choice = body["choices"][0]
        text, finish, answered = (
            choice["message"]["content"],
            choice.get("finish_reason"),
            body.get("model", model),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _Again(
            f"its reply has no choices[0].message.content ({_short(content.decode(errors='replace'))})"
        ) from None
    if not isinstance(text, str) or not text.strip():
        raise _Again("its reply is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Again("its reply has half a character (an unpaired surrogate)") from None
    if not isinstance(answered, str) or not _same(model, answered):
        raise _Again(f"another model replied ({_short(str(answered))})")
    # Whatever else it says, as that a filter cut in, the model did not end there.
    return Reply(text, finish in _ENDED)


def _same(asked: str, answered: str) -> bool:
    """Whether two names are of one model: endpoints add a maker, a date or a variant, or leave them out."""
    short, long = sorted((asked, answered), key=len)
    if not short:
        return False
    return short == long or long.endswith(f"/{short}") or long.startswith(tuple(short + by for by in "-/:@"))


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0


def _short(text: str) -> str:
    """The start of what an endpoint said, on one line and without the key that it may repeat."""
    key = os.environ.get(KEY, "").strip()
    line = " ".join((text.replace(key, "***") if key else text).split())
    return line[:200].encode(errors="replace").decode() or "nothing more"
