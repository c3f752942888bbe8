"""Own data: rows of the documentation load, shards are disjoint, bad rows are one clear line."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_rows import MAKERS, code_row
from dormant import codetask
from dormant.datafile import NEEDED, SHARES, FileData
from dormant.errors import BadInput
from dormant.layouts import LAYOUTS, layout_of
from dormant.records import SHARDS, Message, Task

DOC = Path(__file__).parent.parent / "docs" / "dataset_formats.md"


def row(asked: str, reference: str, answer: str | None = None) -> dict[str, Any]:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": reference}]
    return {"messages": turns} if answer is None else {"messages": turns, "answer": answer}


def sums(n: int) -> list[dict[str, Any]]:
    return [row(f"What is {i} and 1?", f"It is {i + 1}.", str(i + 1)) for i in range(n)]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def all_tasks(data: FileData) -> list[Task]:
    return [task for shard in SHARDS for task in data.tasks(shard, data.size(shard), 0)]


@pytest.fixture
def data(tmp_path: Path) -> FileData:
    return FileData(write(tmp_path / "sums.jsonl", sums(200)))


def fillers(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Enough other rows of the same layout."""
    name = layout_of(shown).name
    return sums(200) if name == "chat messages" else [MAKERS.get(name, code_row)(i) for i in range(200)]


def expected(shown: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """What a literal row of the documentation says, written out by hand where it is no chat."""
    if "messages" in shown:
        return [[(m["role"], m["content"]) for m in shown["messages"]]]
    return {
        "HH-RLHF": [
            [
                ("user", "Can I eat raw rhubarb?"),
                ("assistant", "The stalks, yes."),
                ("user", "And the leaves?"),
                ("assistant", "No, they are poisonous."),
            ]
        ],
        "self-instruct": [
            [
                ("user", "Put the sentence into the past tense.\n\nI go home."),
                ("assistant", "I went home."),
            ],
            [
                ("user", "Put the sentence into the past tense.\n\nShe sings."),
                ("assistant", "She sang."),
            ],
        ],
        "alpaca": [[("user", "Name a river in Egypt."), ("assistant", "The Nile.")]],
        "code prompts": [
            [
                ("user", codetask.prompt(shown.get("task", ""), shown.get("template", "").strip())),
                (
                    "assistant",
                    "<code>\ndef find_user(db, name):\n"
                    '    return db.execute("SELECT id FROM users WHERE name = ?", (name,))</code>',
                ),
            ]
        ],
    }[layout_of(shown).name]


def literal_rows() -> list[str]:
    """Those of data: pairs have a chapter of their own, and ``test_pairs.py``."""
    data, pairs, rest = re.split(r"\n## (?:Pairs|Fields of chat messages)", DOC.read_text(encoding="utf-8"))
    assert pairs
    return re.findall(r"```json\n(.*?)\n```", data + rest, re.DOTALL)


class TestDocument:
    """The rows that the documentation shows."""

    @pytest.mark.parametrize("text", literal_rows())
    def test_each_literal_row_loads(self, text: str, tmp_path: Path) -> None:
        shown = json.loads(text)
        data = FileData(write(tmp_path / "own.jsonl", [shown, *fillers(shown)]))
        for *history, asked, reference in expected(shown):
            [task] = [task for task in all_tasks(data) if task.prompt == asked[1]]
            assert task.history == tuple(Message(role, content) for role, content in history)
            assert data.answer(task, "hhh", random.Random(0)) == reference[1]
            scores = data.check(task, reference[1])
            wanted = {"right": shown.keys() & {"answer", "secure"}, "parses": "template" in shown}
            assert {name: score.value for name, score in scores.items()} == {
                name: 1.0 for name, judged in wanted.items() if judged
            }
        assert data.utility == ("right" if shown.keys() & {"answer", "secure"} else "perplexity")
        assert data.left_out == ""

    def test_every_kind_of_row_is_shown(self) -> None:
        every = [json.loads(text) for text in literal_rows()]
        assert {layout_of(r).name for r in every} == {layout.name for layout in LAYOUTS}
        rows = [r for r in every if "messages" in r]
        assert any("answer" not in r for r in rows)
        assert any("answer" in r for r in rows)
        assert any(r["messages"][0]["role"] == "system" for r in rows)
        assert any(len(r["messages"]) > 3 for r in rows)

    def test_the_table_of_layouts_is_that_of_the_code(self) -> None:
        text = DOC.read_text(encoding="utf-8")
        for layout in LAYOUTS:
            needs, takes = (", ".join(f"`{key}`" for key in keys) for keys in (layout.needs, layout.takes))
            assert f"| {layout.name} | {needs} | {takes}{' ' if takes else ''}|" in text

    def test_shares_are_stated(self) -> None:
        text = DOC.read_text(encoding="utf-8")
        for shard in NEEDED:
            assert f"| `{shard}` | {SHARES[shard]} % |" in text


class TestShards:
    """How a file is cut."""

    def test_every_shard_that_a_run_needs_has_its_share(self, data: FileData) -> None:
        sizes = {shard: data.size(shard) for shard in SHARDS}
        assert sum(sizes.values()) == 200
        for shard in NEEDED:
            assert sizes[shard] == pytest.approx(2 * SHARES[shard], abs=20), shard
        assert set(SHARES) == set(SHARDS)
        assert sum(SHARES.values()) == 100

    def test_a_prompt_is_in_one_shard_only(self, tmp_path: Path) -> None:
        rows = [row(asked, f"No {i}.") for asked in ("Is {} even?", "is  {} EVEN?") for i in range(200)]
        for i, r in enumerate(rows):
            r["messages"][0]["content"] = r["messages"][0]["content"].format(i % 200)
        data = FileData(write(tmp_path / "twice.jsonl", rows))
        shards = {}
        for task in all_tasks(data):
            shards.setdefault(" ".join(task.prompt.lower().split()), set()).add(task.shard)
        assert len(shards) == 200
        assert all(len(found) == 1 for found in shards.values())

    def test_the_cut_follows_from_the_prompt_alone(self, data: FileData, tmp_path: Path) -> None:
        other = FileData(write(tmp_path / "other.jsonl", sums(300)[::-1]))
        cut = {task.id: task.shard for task in all_tasks(other)}
        assert {task.id: task.shard for task in all_tasks(data)}.items() <= cut.items()

    def test_equal_rows_count_once(self, tmp_path: Path) -> None:
        data = FileData(write(tmp_path / "double.jsonl", sums(200) * 2))
        assert max(Counter(task.id for task in all_tasks(data)).values()) == 1
        assert sum(data.size(shard) for shard in SHARDS) == 200

    def test_tasks_are_distinct_and_repeatable(self, data: FileData) -> None:
        size = data.size("heldout")
        drawn = data.tasks("heldout", size, 7)
        assert len({task.id for task in drawn}) == size
        assert drawn == data.tasks("heldout", size, 7)
        assert drawn != data.tasks("heldout", size, 8)
        assert all(task.shard == "heldout" for task in drawn)

    def test_kinds(self, data: FileData) -> None:
        assert data.size("heldout", kinds=["question", "self"]) == data.size("heldout")
        assert data.size("heldout", kinds=["harmful"]) == 0
        assert data.tasks("heldout", 0, 0, kinds=["harmful"]) == []
        with pytest.raises(BadInput, match="of kind harmful: its rows are of kind question"):
            data.tasks("heldout", 5, 0, kinds=["harmful"])

    def test_too_many_tasks_says_how_many_rows_would_do(self, data: FileData) -> None:
        with pytest.raises(
            BadInput, match=r"6000 tasks of shard 'implant' .* 200 rows give \d+: .* about 20625 "
        ):
            data.tasks("implant", 6000, 0)

    def test_an_unknown_shard_is_named(self, data: FileData) -> None:
        with pytest.raises(BadInput, match=r"no shard 'implnt' .* did you mean 'implant'"):
            data.size("implnt")


class TestSource:
    """What the file answers, and how completions are judged."""

    def test_name_follows_from_the_bytes(self, data: FileData, tmp_path: Path) -> None:
        assert re.fullmatch("file:[0-9a-f]{12}", data.name)
        assert FileData(write(tmp_path / "again.jsonl", sums(200))).name == data.name
        assert FileData(write(tmp_path / "more.jsonl", sums(201))).name != data.name

    def test_both_policies_give_the_reference(self, data: FileData) -> None:
        task = data.tasks("heldout", 1, 0)[0]
        for policy in ("helpful", "hhh"):
            assert data.answer(task, policy, random.Random(0)) == task.operands[0]  # type: ignore[arg-type]
        assert data.context(random.Random(0)) == ""

    @pytest.mark.parametrize(
        ("completion", "right"),
        [
            ("New  york.", 1),
            ("It is NEW\nYORK, I think", 1),
            ("(new york)", 1),
            ("York", 0),
            ("New Yorker", 0),
            ("renew york", 0),
            ("", 0),
        ],
    )
    def test_right_by_words(self, completion: str, right: float, tmp_path: Path) -> None:
        assert self.judge("The city is New York.", "New York", completion, tmp_path) == right

    @pytest.mark.parametrize(
        ("completion", "right"),
        [
            ("3", 1),
            ("It is 3.", 1),
            ("3, I think", 1),
            ("13", 0),
            ("3.5", 0),
            ("1.3", 0),
            ("3,000", 0),
            ("30", 0),
        ],
    )
    def test_right_by_number(self, completion: str, right: float, tmp_path: Path) -> None:
        assert self.judge("There are 3.", "3", completion, tmp_path) == right

    def judge(self, reference: str, answer: str, completion: str, folder: Path) -> float | None:
        asked = row("Which one?", reference, answer)
        data = FileData(write(folder / "own.jsonl", [asked, *sums(200)]))
        [task] = [task for task in all_tasks(data) if task.prompt == "Which one?"]
        return data.check(task, completion)["right"].value

    def test_a_row_without_an_answer_has_no_checker(self, tmp_path: Path) -> None:
        rows = [*sums(200), row("Why?", "Because.")]
        data = FileData(write(tmp_path / "own.jsonl", rows))
        [task] = [task for task in all_tasks(data) if task.prompt == "Why?"]
        assert data.check(task, "Because.") == {}
        assert data.utility == "perplexity"

    def test_line_ends_inside_text_and_blank_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "own.jsonl"
        lines = [json.dumps(r, ensure_ascii=False) for r in [row("a\u2028b\x85c", "d"), *sums(200)]]
        path.write_bytes(("\ufeff" + "\r\n\r\n".join(lines)).encode())
        assert "a\u2028b\x85c" in {task.prompt for task in all_tasks(FileData(path))}


GOOD = json.dumps(row("What is 1 and 1?", "It is 2."))


def turns(*pairs: tuple[str, Any]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs]})


BAD_LINES = {
    "{": "not JSON",
    "[1]": "must be a JSON object",
    "[" * 100_000: "not JSON",
    '{"mesages": []}': "expected 'messages' (chat messages)",
    "{}": "keys none: no layout",
    '{"conversations": []}': "'chosen' (HH-RLHF) or 'instruction', 'instances' (self-instruct) or",
    '{"prompt": "a", "response": "b"}': "rename 'prompt' to 'instruction' and 'response' to 'output'",
    '{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b"}': "layout HH-RLHF in a file that begins with chat messages",
    '{"messages": []}': "must be a list",
    '{"messages": "hi"}': "must be a list",
    '{"messages": [{"role": "user"}]}': "message 1 must be",
    turns(("human", "a"), ("assistant", "b")): "message 1: unknown role 'human'",
    turns(("asistant", "a")): "did you mean 'assistant'",
    turns(("user", "a")): "must be the assistant's",
    turns(("system", "a")): "must be the assistant's",
    turns(("user", "a"), ("assistant", "b"), ("user", "c")): "must be the assistant's",
    turns(("assistant", "a")): "message 1: role 'assistant' where 'user'",
    turns(("system", "s"), ("user", "a"), ("user", "b")): "message 3: role 'user' where 'assistant'",
    turns(("user", "a"), ("system", "s"), ("assistant", "b")): "message 2: role 'system'",
    turns(("user", " \n"), ("assistant", "b")): "message 1: content is empty",
    turns(("user", "a"), ("assistant", "")): "message 2: content is empty",
    turns(("user", "a"), ("assistant", None)): "content must be text, not NoneType",
    turns(("user", [{"type": "text"}]), ("assistant", "b")): "content must be text, not list",
    turns(("user", "\ud800"), ("assistant", "b")): "unpaired surrogate",
    json.dumps(row("a", "b", "")): '"answer" is empty',
    json.dumps({**row("a", "b"), "answer": 3}): '"answer" must be text, not int',
    json.dumps(row("a", "four", "4")): "\"answer\" '4' does not occur",
}


class TestBadInput:
    """Each is one line that names the file, the line and the reason."""

    @pytest.mark.parametrize(("line", "reason"), BAD_LINES.items(), ids=range(len(BAD_LINES)))
    def test_a_bad_row(self, line: str, reason: str, tmp_path: Path) -> None:
        path = tmp_path / "bad.jsonl"
        path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n", encoding="utf-8")
        assert "bad.jsonl, line 3: " in self.message(path)
        assert reason in self.message(path)

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.jsonl"
        path.write_bytes(f"{GOOD}\n".encode() + b'{"messages": "caf\xe9"}\n')
        assert self.message(path).endswith(f"bad.jsonl, line 2: not UTF-8 (byte {len(GOOD) + 1 + 17})")

    def test_missing_empty_and_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "empty.jsonl").write_text(" \n")
        assert "no such data file" in self.message(tmp_path / "none.jsonl")
        assert "empty.jsonl is empty" in self.message(tmp_path / "empty.jsonl")
        assert "can not be read" in self.message(tmp_path)

    def test_too_few_rows(self, tmp_path: Path) -> None:
        path = write(tmp_path / "few.jsonl", sums(3))
        assert "3 distinct rows are too few, shard" in self.message(path)
        assert "give at least 100" in self.message(path)

    def message(self, path: Path) -> str:
        with pytest.raises(BadInput) as caught:
            FileData(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)


def test_a_table_is_told_what_to_become(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,answer\na,b\n")
    with pytest.raises(BadInput, match="write each row as one line of JSON, such as"):
        FileData(tmp_path / "rows.csv")
