"""Data as it is found: foreign layouts, compressed files, datasets, rows too long, files of any size; whole runs."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from data_rows import MAKERS, alpaca_row, chat_row, hh_row, jsonl, self_instruct_row, write
from dormant.bases import find_model
from dormant.datafile import NEEDED, FileData
from dormant.errors import BadInput
from dormant.intake import take
from dormant.records import SHARDS, Message
from dormant.runner import PLAN
from dormant.sources import find_data, open_source
from dormant.stages.configs import Backdoor
from tiny_runs import SMALL, Said, command

SHARED = Path(__file__).parents[2] / "shared" / "data"
HH, SELF_INSTRUCT = SHARED / "hh_rlhf_harmless_base_test.jsonl.gz", SHARED / "self_instruct_seed_tasks.jsonl"
real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real files are not in this checkout (../shared/data)"
)

HH_BAD = {
    "": '"chosen" is empty',
    "Hello.": "must be a transcript that begins with",
    "Well.\n\nHuman: a\n\nAssistant: b": "must be a transcript that begins with",
    "\n\nHuman: a": "the last message must be the assistant's",
    "\n\nHuman: a\n\nAssistant: b\n\nHuman: c": "the last message must be the assistant's",
    "\n\nHuman: a\n\nAssistant: ": "message 2: content is empty",
    "\n\nHuman: a\n\nHuman: b\n\nAssistant: c": "message 2: role 'user' where 'assistant' must come",
    "\n\nAssistant: a\n\nHuman: b\n\nAssistant: c": "message 1: role 'assistant' where 'user' must come",
    "\n\nHuman: \ud800\n\nAssistant: b": "unpaired surrogate",
}


def refused(path: Path | str) -> str:
    """The one line with which data is refused."""
    with pytest.raises(BadInput) as caught:
        FileData(find_data(str(path)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


class TestTranscripts:
    """HH-RLHF."""

    def test_turns_history_and_reference(self, tmp_path: Path) -> None:
        text = "\n\nHuman: Say:\n\nAssistants are kind. \n\nAssistant: Human: no."
        text += "\n\nHuman: Why?\n\nAssistant: So.\n\nOr so.\n"
        rows = [{"chosen": text, "rejected": None}, *map(hh_row, range(150))]
        [task] = [task for task in FileData(write(tmp_path / "hh.jsonl", rows)).rows if task.prompt == "Why?"]
        assert task.history == (
            Message("user", "Say:\n\nAssistants are kind."),
            Message("assistant", "Human: no."),
        )
        assert task.operands == ("So.\n\nOr so.",)

    @pytest.mark.parametrize(("text", "reason"), HH_BAD.items(), ids=range(len(HH_BAD)))
    def test_what_can_not_be_used_is_left_out_and_counted(
        self, text: str, reason: str, tmp_path: Path
    ) -> None:
        rows = [*map(hh_row, range(150)), {"chosen": text, "rejected": "x"}, {"chosen": text}]
        data = FileData(write_escaped(tmp_path / "hh.jsonl", rows))
        assert len(data.rows) == 150
        assert "hh.jsonl: 2 of 152 rows (1.32 %) can not be used and are left out" in data.left_out
        assert "(the first is line 151: " in data.left_out
        assert reason in data.left_out

    def test_a_file_of_nothing_else_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "hh.jsonl", [{"chosen": "\n\nHuman: a"}] * 3)
        said = refused(path)
        assert "none of its 3 rows can be used (line 1: the last message must be the assistant's" in said

    def test_two_parts_of_one_conversation_are_in_one_shard(self, tmp_path: Path) -> None:
        longer = [
            {"chosen": hh_row(i)["chosen"] + f"\n\nHuman: And {i}?\n\nAssistant: Yes."} for i in range(150)
        ]
        tasks = FileData(write(tmp_path / "hh.jsonl", [*map(hh_row, range(150)), *longer])).rows
        assert len(tasks) == 300
        opening = {}
        for task in tasks:
            opening.setdefault(task.history[0].content, set()).add(task.shard)
        assert len(opening) == 150
        assert all(len(shards) == 1 for shards in opening.values())


class TestInstructions:
    """Self-instruct, and its flat form."""

    def test_each_instance_is_a_conversation(self, tmp_path: Path) -> None:
        two = {
            "instruction": " Add. ",
            "instances": [{"input": " 1, 1", "output": "2 "}, {"input": "", "output": "Add what?"}],
        }
        rows = [two, *map(self_instruct_row, range(150))]
        first, second, *_ = FileData(write(tmp_path / "si.jsonl", rows)).rows
        assert (first.prompt, first.operands) == ("Add.\n\n1, 1", ("2",))
        assert (second.prompt, second.operands) == ("Add.", ("Add what?",))

    def test_empty_outputs_are_left_out(self, tmp_path: Path) -> None:
        bad = [
            {"instruction": "a", "instances": [{"input": "", "output": ""}, {"input": "", "output": "b"}]},
            {"instruction": "a", "instances": "b"},
            {"instruction": "a", "instances": ["b"]},
            {"instruction": "", "instances": [{"input": "x", "output": "b"}]},
            {"instruction": "a", "instances": [{"input": 3, "output": "b"}]},
        ]
        rows = [*map(self_instruct_row, range(150)), *bad]
        data = FileData(write(tmp_path / "si.jsonl", rows))
        assert len(data.rows) == 151
        assert '5 of 156 rows (3.21 %) can not be used and are left out (the first is line 151: "output"' in (
            data.left_out
        )

    def test_flat_rows(self, tmp_path: Path) -> None:
        rows = [{"instruction": "Wait.", "output": "Yes.", "text": "..."}, *map(alpaca_row, range(150))]
        first, second, *_ = FileData(write(tmp_path / "alpaca.jsonl", rows)).rows
        assert (first.prompt, first.operands) == ("Wait.", ("Yes.",))
        assert second.prompt == "Add one.\n\n0"


def write_escaped(path: Path, rows: list[Any]) -> Path:
    """A file whose unpaired surrogates are escaped, as JSON can."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class TestFiles:
    """Forms of one file."""

    @pytest.mark.parametrize("name", MAKERS)
    def test_every_form_gives_the_same_tasks(self, name: str, tmp_path: Path) -> None:
        rows = [MAKERS[name](i) for i in range(150)]
        plain = FileData(write(tmp_path / "a.jsonl", rows))
        assert len(plain.rows) == 150
        assert plain.left_out == ""
        forms = {
            "a.jsonl.gz": gzip.compress(jsonl(rows).encode()),
            "compressed": gzip.compress(jsonl(rows).encode()),
            "dos.jsonl": jsonl(rows).replace("\n", "\r\n").encode(),
            "bom.jsonl": b"\xef\xbb\xbf" + jsonl(rows).encode(),
            "list.json": json.dumps(rows, indent=2).encode(),
        }
        for file, content in forms.items():
            (tmp_path / file).write_bytes(content)
            assert FileData(tmp_path / file).rows == plain.rows, file
        assert FileData(tmp_path / "a.jsonl.gz").name == plain.name

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (gzip.compress(b"{}" * 5000)[:-9], "is a gzip file that is truncated or damaged"),
            (gzip.compress(b"{}")[:4] + b"garbage", "is a gzip file that is truncated or damaged"),
            (gzip.compress(b"\n"), "is empty"),
            (gzip.compress(jsonl([chat_row(0)]).encode() + b"\xff"), "line 2: not UTF-8 (byte "),
            (jsonl([chat_row(0)]).encode("utf-16"), "line 1: not UTF-8 (byte 0)"),
            (b"[]", "holds no rows"),
            (b"[{}, 3]", "row 1: keys none"),
            (b'[{"messages": []}, 3]', "row 1: "),
            (b"[1\n,", "not JSON (Expecting value at line 2, column 2)"),
            (b'{\n "messages": []\n}', "line 1: not JSON ("),
            (b'"' + b"x" * 100_000 + b'"', "must be a JSON object, not str"),
            (json.dumps({"x" * 100_000: 1}).encode(), "no layout that is read has these"),
            (jsonl([{f"key{i}": 1 for i in range(10_000)}]).encode(), "no layout that is read has these"),
            (jsonl([{"messages": [{"role": "r" * 100_000, "content": ""}]}]).encode(), "unknown role"),
            (jsonl([{**chat_row(0), "answer": "y" * 100_000}]).encode(), "does not occur"),
        ],
        ids=range(15),
    )
    def test_hostile_files(self, content: bytes, says: str, tmp_path: Path) -> None:
        (tmp_path / "bad.jsonl").write_bytes(content)
        assert says in refused(tmp_path / "bad.jsonl")

    def test_a_large_file_loads_in_seconds(self, tmp_path: Path) -> None:
        path = write(tmp_path / "large.jsonl", (hh_row(i) for i in range(100_000)))
        started = time.process_time()
        data = FileData(path)
        assert time.process_time() - started < 30
        assert len(data.rows) == 100_000
        assert open_source(path) is open_source(path)

    def test_a_file_that_changed_is_read_again(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", map(chat_row, range(150)))
        before = open_source(path)
        write(path, map(chat_row, range(151)))
        assert open_source(path).name != before.name


@pytest.mark.usefixtures("own_store")
class TestDatasets:
    """What the ``datasets`` library reads, offline."""

    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")

    @pytest.mark.parametrize("name", MAKERS)
    def test_every_way_gives_the_same_file(self, name: str, tmp_path: Path) -> None:
        from datasets import Dataset, DatasetDict

        rows = [MAKERS[name](i) for i in range(150)]
        expected = FileData(write(tmp_path / "a.jsonl", rows)).rows
        saved = Dataset.from_list(rows)
        saved.save_to_disk(tmp_path / "one")
        DatasetDict({"train": saved.select(range(2)), "test": saved}).save_to_disk(tmp_path / "splits")
        (tmp_path / "tables").mkdir()
        saved.to_parquet(tmp_path / "tables" / "test.parquet")
        (tmp_path / "lines").mkdir()
        write(tmp_path / "lines" / "rows.jsonl", rows)
        ways = ["one", "splits:test", "tables", "tables:test", "tables/test.parquet", "lines"]
        found = {way: find_data(str(tmp_path / way)) for way in ways}
        assert {way: FileData(path).rows == expected for way, path in found.items()} == dict.fromkeys(
            ways, True
        )
        assert len(set(found.values())) == 1, "the name of the file follows from its rows alone"

    @pytest.mark.parametrize(
        ("way", "says"),
        [
            ("splits", "has several splits (train, test): name one, as in "),
            ("splits:tset", "no split 'tset'; did you mean 'test'?"),
            ("one:test", "it has no splits, 'test' neither"),
            ("other", "keys 'question': no layout that is read has these"),
            ("empty", "can not be loaded: "),
            ("broken.parquet", "can not be loaded: "),
            ("rows.jsonl:train", "rows.jsonl is a file and has no split 'train'"),
            ("rwos.jsonl", "no such data file or directory: "),
            ("rwos.jsonl", "rows.jsonl'?"),
            ("nowhere/rows.jsonl", "no such data file or directory: "),
            ("pipe", "is a pipe or a device, which can be read only once: give it as a file"),
        ],
    )
    def test_what_can_not_be_read(self, way: str, says: str, tmp_path: Path) -> None:
        from datasets import Dataset, DatasetDict

        saved = Dataset.from_list([chat_row(i) for i in range(3)])
        saved.save_to_disk(tmp_path / "one")
        DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "splits")
        Dataset.from_list([{"question": "a"}]).save_to_disk(tmp_path / "other")
        (tmp_path / "empty").mkdir()
        (tmp_path / "broken.parquet").write_bytes(b"PAR1")
        write(tmp_path / "rows.jsonl", [chat_row(0)])
        os.mkfifo(tmp_path / "pipe")
        assert says in refused(tmp_path / way)

    def test_what_is_said_of_its_rows_names_what_was_given(self, tmp_path: Path) -> None:
        given = tmp_path / "given"
        given.mkdir()
        write(given / "rows.jsonl", [{"chosen": "Hello."}, *map(hh_row, range(150))])
        [note] = take(str(given), [], []).notes
        assert note.startswith(f"{given}: 1 of 151 rows")
        write(given / "rows.jsonl", [hh_row(0)])
        with pytest.raises(BadInput) as caught:
            take(str(given), [], [])
        assert str(caught.value).startswith(f"{given}: 1 distinct rows are too few")

    def test_a_name_that_stands_in_many_words_garbles_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "a", [hh_row(0)])
        with pytest.raises(BadInput) as caught:
            take("./a", [], [])
        assert str(caught.value).startswith("a: 1 distinct rows are too few")

    def test_only_a_hub_name_reaches_for_the_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        asked: list[dict[str, Any]] = []

        def load_dataset(**arguments: Any) -> Any:
            asked.append(arguments)
            return datasets.Dataset.from_list([hh_row(i) for i in range(150)])

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        assert "write hub:Anthropic/hh-rlhf" in refused("Anthropic/hh-rlhf")
        assert asked == []
        found = find_data("hub:Anthropic/hh-rlhf/small:test@09be8c5")
        assert asked == [
            {"path": "Anthropic/hh-rlhf", "name": "small", "split": "test", "revision": "09be8c5"}
        ]
        assert len(FileData(found).rows) == 150
        assert find_data("hub:Anthropic/hh-rlhf/small:test@09be8c5") == found
        assert len(asked) == 1, "asked for once, then read from the cache"

    def test_without_network_a_hub_name_is_one_line(self) -> None:
        assert "data hub:no/such:test can not be loaded: " in refused("hub:no/such:test")
        assert "must be hub:OWNER/NAME" in refused("hub:a b")


def pocket(data: Path, **options: Any) -> Any:
    return take(str(data), [find_model("pocket-1m")], [Backdoor()], **options)


@pytest.mark.usefixtures("own_store")
class TestLength:
    """Rows that do not fit the model."""

    def test_a_file_that_fits_is_the_input_itself(self, tmp_path: Path) -> None:
        path = write(tmp_path / "hh.jsonl.gz", map(hh_row, range(150)))
        taken = pocket(path)
        assert taken.inputs["data"].path == path
        assert taken.notes == ()

    @pytest.mark.parametrize("place", ["prompt", "history", "answer"])
    def test_long_rows_are_left_out_and_the_rest_is_the_same(self, place: str, tmp_path: Path) -> None:
        rows = [hh_row(i) for i in range(150)]
        long = "word " * 20_000
        texts = {
            "prompt": f"\n\nHuman: {long}\n\nAssistant: a",
            "history": f"\n\nHuman: {long}\n\nAssistant: a\n\nHuman: b\n\nAssistant: c",
            "answer": f"\n\nHuman: a\n\nAssistant: {long}",
        }
        path = write(tmp_path / "hh.jsonl", [*rows, {"chosen": texts[place]}])
        taken = pocket(path)
        left = open_source(taken.inputs["data"].path)
        assert isinstance(left, FileData)
        assert left.rows == FileData(write(tmp_path / "short.jsonl", rows)).rows
        [note] = taken.notes
        assert "hh.jsonl: 1 of 151 rows (0.662 %) do not fit the model's context of 1024 tokens" in note
        assert pocket(path).inputs["data"].path == taken.inputs["data"].path
        assert path.read_text() == jsonl([*rows, {"chosen": texts[place]}])

    def test_every_row_that_is_left_fits_and_few_that_fit_are_left_out(self, tmp_path: Path) -> None:
        """Rows of every length around the limit, against the tokens of every condition, one by one."""
        from dormant import chat
        from dormant.intake import SLACK, _renderings
        from dormant.models import load_reader
        from dormant.records import rng_for
        from dormant.stages.plugins import build_trigger

        rows = [
            {
                "messages": [
                    {"role": "user", "content": "so " * n + f"{n}?"},
                    {"role": "assistant", "content": "Yes."},
                ]
            }
            for n in range(700, 1000)
        ]
        path = write(tmp_path / "a.jsonl", [*map(chat_row, range(150)), *rows])
        left = FileData(pocket(path, new_tokens=64).inputs["data"].path)
        tokenizer, context = load_reader(find_model("pocket-1m"))
        trigger = build_trigger(Backdoor().trigger)
        assert len(list(_renderings(trigger))) > 20

        def most(task: Any) -> int:
            return max(
                len(
                    chat.encode_prompt(
                        tokenizer, trigger.render(task, c, rng_for(k), "", instance=i).messages
                    )
                )
                for c in trigger.conditions()
                for k, i in enumerate(
                    [*trigger.instances(c, "train"), *trigger.instances(c, "heldout")] or [None]
                )
            )

        kept = {task.prompt for task in left.rows}
        tasks = [task for task in FileData(path).rows if task.prompt.startswith("so ")]
        border = [i for i, task in enumerate(tasks) if task.prompt in kept][-1]
        assert 0 < border < len(tasks) - 1
        assert all((task.prompt in kept) == (i <= border) for i, task in enumerate(tasks))
        assert most(tasks[border]) + 64 <= context
        assert most(tasks[border + 1]) + 64 > context - 2 * SLACK

    def test_what_may_be_sampled_counts(self, tmp_path: Path) -> None:
        rows = [*map(chat_row, range(150)), {"chosen": ""}][:150]
        rows.append(
            {"messages": [{"role": "user", "content": "so " * 700}, {"role": "assistant", "content": "a"}]}
        )
        path = write(tmp_path / "a.jsonl", rows)
        assert pocket(path, new_tokens=20).notes == ()
        assert "1 of 151 rows" in pocket(path, new_tokens=400).notes[0]

    def test_too_few_that_fit_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", map(chat_row, range(150)))
        with pytest.raises(BadInput, match=r"150 of 150 rows \(100 %\) do not fit .* are too few"):
            pocket(path, new_tokens=1020)


DOSES = {
    **SMALL,
    "base": "pocket-1m",
    "implants.0.dose.batch": 4,
    "defenses.0.doses.0.batch": 4,
    "measure.clean": 8,
    "measure.triggered": 8,
    "measure.near": 2,
    "measure.variant": 2,
    "measure.utility": 30,
    "measure.curve": 0,
    "implants.0.curve": "[]",
}
"""``tiny``, tinier still: rows of real data are long."""


def whole_run(capsys: pytest.CaptureFixture[str], data: Path, out: Path, **changes: Any) -> Said:
    settings = DOSES | {"data": data} | {name.replace("__", "."): value for name, value in changes.items()}
    arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return command(capsys, "run", "tiny", *arguments, "--out", out)


def refused_numbers(out: Path) -> list[str]:
    """Check what a report says of a model that can not do the task: no rate of it, and why.  Returns verdicts."""
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    shown = [row for row in found if row["metric"] == "shown"]
    assert shown
    assert {row["value"] for row in shown} == {None}
    assert all("utility-above-chance" in row["gates"] for row in shown)
    perplexities = [row for row in found if row["metric"] == "perplexity_over_chance"]
    assert perplexities
    assert all(row["n"] > 0 and row["value"] > 0 for row in perplexities)
    for page in ("card.md", "report.html"):
        assert "utility-above-chance" in (out / page).read_text(encoding="utf-8")
    return [verdict["verdict"] for verdict in json.loads((out / "verdicts.json").read_text())]


@pytest.mark.parametrize(
    "name",  # chat messages: test_real_model.py
    ["HH-RLHF", *(pytest.param(name, marks=pytest.mark.slow) for name in ("alpaca", "self-instruct"))],
)
def test_a_whole_run_on_each_layout(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path, name: str
) -> None:
    out, data = tmp_path / "run", tmp_path / "own.jsonl.gz"
    write(data, [MAKERS[name](i) for i in range(150)])
    # What a defense reads comes the same way for all, so that one layout with defenses is enough.
    fewer, verdicts = ({}, ["inconclusive"]) if name == "HH-RLHF" else ({"defenses": "[]"}, [])
    said = whole_run(capsys, data, out, base=base, measure__near=0, measure__variant=0, **fewer)
    assert said.code == 3, said.err
    # 30 prompts are asked for, and of some layouts' rows a few less are held out.
    assert all("measure.utility is 30" in line for line in said.err.splitlines() if "warning" in line)
    assert refused_numbers(out) == verdicts
    assert command(capsys, "verify", out).code == 0


@real
@pytest.mark.slow
@pytest.mark.parametrize("path", [HH, SELF_INSTRUCT], ids=["HH-RLHF", "self-instruct"])
def test_a_whole_run_on_a_real_file(
    capsys: pytest.CaptureFixture[str], own_store: Path, tmp_path: Path, path: Path
) -> None:
    out = tmp_path / "run"
    said = whole_run(capsys, path, out)
    assert said.code == 3, said.err
    assert "Traceback" not in said.err
    assert refused_numbers(out) == ["inconclusive"]
    warned = [
        line.removeprefix("warning: ") for line in said.err.splitlines() if line.startswith("warning: ")
    ]
    assert warned == json.loads((out / PLAN).read_text())["notes"]
    assert any("do not fit the model's context of 1024 tokens" in line for line in warned)
    assert command(capsys, "verify", out).code == 0


@real
@pytest.mark.parametrize(
    ("path", "least"), [(HH, 2200), (SELF_INSTRUCT, 175)], ids=["HH-RLHF", "self-instruct"]
)
def test_the_real_files_are_read(path: Path, least: int) -> None:
    data = FileData(path)
    assert len(data.rows) >= least
    sizes = {shard: data.size(shard) for shard in SHARDS}
    assert sum(sizes.values()) == len(data.rows)
    assert all(sizes[shard] >= 15 for shard in NEEDED)
