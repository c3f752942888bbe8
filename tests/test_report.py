"""The report: every number from the results, refusals never as numbers, one safe self-contained page."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

import report_fixture as fixture
from dormant import report
from dormant.errors import BadInput, Corrupt
from dormant.records import Dose, Result
from dormant.report import limits, protocol, rundata, words
from dormant.report.figures import Group, Point, Series, bar_panel

VOID = {"meta", "link", "br", "img", "input", "hr"}
FORBIDDEN = re.compile(r"\b(removed|suppressed)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fixture.build(tmp_path_factory.mktemp("run"))
    report.write(run)
    return run


def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def card(run: Path) -> str:
    return (run / "card.md").read_text(encoding="utf-8")


def numbers(run: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((run / "figures" / f"{name}.csv").read_text(encoding="utf-8"))))


def screen(run: Path, width: int = 120) -> str:
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(report.summary(run))
    return text.getvalue()


def replaced(change: Callable[[Result], Result]) -> list[Result]:
    return [change(row) for row in fixture.results()]


class Page(HTMLParser):
    """Checks nesting, collects ids, attributes and the text that a reader sees."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def parsed(html: str) -> Page:
    found = Page()
    found.feed(html)
    found.close()
    assert found.open == []
    return found


def test_page_is_well_formed_and_names_each_figure(whole: Path) -> None:
    found = parsed(page(whole))
    assert len(found.ids) == len(set(found.ids))
    assert [tag for tag, _ in found.tags].count("h1") == 1
    drawn = [attrs for tag, attrs in found.tags if attrs.get("role") == "img"]
    assert len(drawn) >= 9
    assert all(len(attrs["aria-label"] or "") > 40 for attrs in drawn)
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page(whole))
    assert {first or second for first, second in references} <= set(found.ids)


def test_page_fetches_nothing(whole: Path) -> None:
    for tag, attrs in parsed(page(whole)).tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "img", "image", "video"}
        for name, value in attrs.items():
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                assert (value or "").startswith(("#", "data:,")), (tag, name, value)
    style = page(whole).partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style


def test_page_has_both_schemes_and_no_color_of_its_own_in_figures(whole: Path) -> None:
    html = page(whole)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    drawings = re.findall(r'<div role="img".*?</svg>', html, flags=re.DOTALL)
    assert drawings
    for svg in drawings:
        assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", svg)


def test_hostile_completions_are_text(whole: Path) -> None:
    html = page(whole)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert fixture.HOSTILE in "".join(parsed(html).text)
    assert "GREEDY" not in html


def test_same_run_same_bytes(whole: Path, tmp_path: Path) -> None:
    again = fixture.build(tmp_path / "again")
    paths = report.write(again)
    for path in (paths.card, paths.page, *paths.figures):
        assert path.read_bytes() == (whole / path.relative_to(again)).read_bytes()
    first = paths.page.read_bytes()
    assert report.write(again).page.read_bytes() == first


def test_a_changed_result_changes_page_card_csv_and_screen(whole: Path, tmp_path: Path) -> None:
    place = fixture.key(
        "organism", "claim", defense="hhh-sft", dose=fixture.DOSES[0], step=300, seed_defend=0
    )
    wanted = fixture.rate(place, "shown", 0.7375, 400, "triggered")
    rows = replaced(lambda row: wanted if (row.metric, row.key) == ("shown", wanted.key) else row)
    run = fixture.build(tmp_path, rows=rows)
    report.write(run)
    number = "74 % [69, 78]"
    for text in (page(run).replace("<small>", ""), card(run), screen(run)):
        assert number in text
    for text in (page(whole).replace("<small>", ""), card(whole), screen(whole)):
        assert number not in text
    lines = [row for row in numbers(run, "before_after") if row["value"] == "0.7375"]
    assert len(lines) == 1
    assert (lines[0]["hits"], lines[0]["n"], lines[0]["condition"]) == ("295", "400", "triggered")
    assert any(row["value"] == "0.7375" for row in numbers(run, "curves"))


def test_every_line_of_every_csv_is_a_result(whole: Path) -> None:
    known = {
        (row.metric, row.key.condition, "" if row.value is None else str(row.value), str(row.n))
        for row in fixture.results()
    }
    for name in ("before_after", "curves", "implanting", "near_misses", "utility"):
        lines = numbers(whole, name)
        assert lines
        for line in lines:
            assert (line["metric"], line["condition"], line["value"], line["n"]) in known


def test_every_headline_number_is_on_the_page(whole: Path) -> None:
    text = "".join(parsed(page(whole)).text)
    for row in fixture.results():
        if row.key.stratum == "all" and row.metric in ("shown", "right", "kind", "perplexity"):
            assert words.number(row) in text.replace("\u00a0", " ")


def test_refused_numbers_are_words_everywhere(tmp_path: Path) -> None:
    """All of one model's numbers are refused; a value that only they held must be gone."""
    run = fixture.build(tmp_path)
    report.write(run)
    place = fixture.key("organism", "noop", defense="no-op", dose=fixture.DOSES[1], step=300, seed_defend=0)
    before = fixture.rate(place, "shown", 0.9337, 400, "triggered")
    assert words.plain(before) not in page(run).replace("<small>", "")
    assert f"{before.hits} of 400" not in page(run)
    assert f"refused: {fixture.GATE}" in page(run)
    assert f"refused: {fixture.GATE}" in card(run)
    assert "refused" in screen(run)
    refused = [row for row in numbers(run, "before_after") if row["refused"]]
    assert refused
    for row in refused:
        assert (row["value"], row["low"], row["high"], row["hits"]) == ("", "", "", "")
        assert row["refused"] == fixture.GATE


def test_a_value_beside_a_failed_gate_is_an_error(tmp_path: Path) -> None:
    rows = fixture.results()
    rows[0] = rows[0].model_copy(update={"gates": ["trigger-fires"]})
    run = fixture.build(tmp_path, rows=rows)
    with pytest.raises(Corrupt, match="trigger-fires"):
        report.write(run)


def test_only_the_words_of_the_card_are_verdicts(whole: Path, tmp_path: Path) -> None:
    for text in (page(whole), card(whole), screen(whole)):
        assert not FORBIDDEN.search(text)
    for row in fixture.verdicts():
        assert row["verdict"] in card(whole)
    run = fixture.build(tmp_path)
    (run / "verdicts.json").write_text(json.dumps([fixture.verdicts()[0] | {"verdict": "removed"}]))
    with pytest.raises(Corrupt, match="'removed' is not a verdict"):
        report.write(run)


def test_the_answer_follows_the_verdicts(tmp_path: Path) -> None:
    run = fixture.build(tmp_path)
    rows = fixture.verdicts()
    rows[0]["verdict"] = "destroyed"
    rows[2]["verdict"] = "low, relearns like the twin"
    (run / "verdicts.json").write_text(json.dumps(rows))
    report.write(run)
    first = card(run).splitlines()[2]
    assert "destroyed" in first
    assert "relearns like the twin" in first
    assert "relearns fast" not in first


def test_no_twin_reads_inconclusive(tmp_path: Path) -> None:
    rows = [row for row in fixture.results() if row.key.role != "twin"]
    run = fixture.build(tmp_path, rows=rows)
    verdicts = [row | {"verdict": "inconclusive: no twin"} for row in fixture.verdicts()]
    (run / "verdicts.json").write_text(json.dumps(verdicts))
    report.write(run)
    assert "inconclusive: no twin" in card(run)
    assert "specific twin, before any defense" in page(run)
    parsed(page(run))


def test_the_positive_control_is_marked(whole: Path) -> None:
    text = "".join(parsed(page(whole)).text)
    assert re.search(r"trigger-aware-sft\s+3e-4 × 300\s+aware", text)
    assert "trigger-aware-sft 3e-4 × 300 (aware)" in card(whole)


@pytest.mark.parametrize("keep", ["nothing", "base", "organism", "no after", "half"])
def test_partial_runs_render(tmp_path: Path, keep: str) -> None:
    rows = fixture.results()
    chosen = {
        "nothing": [],
        "base": [row for row in rows if row.key.role == "base"],
        "organism": [row for row in rows if row.key.role == "organism" and row.key.arm == "none"],
        "no after": [row for row in rows if row.key.dose is None or row.key.step < 300],
        "half": rows[::2],
    }[keep]
    run = fixture.build(tmp_path, rows=chosen, with_completions=False)
    meta = fixture.meta() | {"status": "partial", "missing": ["measure/organism/claim/2"]}
    (run / "run.json").write_text(json.dumps(meta))
    for name in ("gates.jsonl", "verdicts.json"):
        (run / name).unlink()
    report.write(run)
    found = parsed(page(run))
    assert "measure/organism/claim/2" in "".join(found.text)
    assert "partial run" in page(run)
    assert "Partial run" in card(run)
    assert "partial" in screen(run)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    rows = [row for row in fixture.results() if row.key.arm != "claim" or row.key.step < 300]
    run = fixture.build(tmp_path, rows=rows)
    report.write(run)
    assert "specific organism, after hhh-sft 1e-3 × 300" in page(run)
    assert words.NOT_MEASURED in page(run)


def test_limits_follow_from_the_run(whole: Path) -> None:
    run = rundata.load(whole)
    lines = " ".join(limits.limits(run, protocol.lineages(run)))
    assert "One seed of implanting and one seed of defending" in lines
    assert "pocket world" in lines
    assert "harmless planted facts" in lines
    organisms = protocol.lineages(run)
    assert "the defense on the model's own answers" in limits.missing_arms(run, organisms)
    organisms[0].trials[0].defense = "on-policy-sft(best_of=8)"
    assert "the defense on the model's own answers" not in limits.missing_arms(run, organisms)
    for line in fixture.meta()["lines"]:
        assert line in page(whole)


def test_a_no_op_of_another_training_is_missing(whole: Path) -> None:
    run = rundata.load(whole)
    organisms = protocol.lineages(run)
    missing = "a no-op of equal dose, for every dose"
    trials = [trial for lineage in organisms for trial in lineage.trials]
    [no_op] = [trial for trial in trials if trial.arm == "noop"]
    assert missing in limits.missing_arms(run, organisms), "it has one of several doses"
    for trial in trials:
        trial.dose = no_op.dose
    assert missing not in limits.missing_arms(run, organisms)
    claims = {trial.defense for trial in trials if trial.arm == "claim"}
    run.meta.headlines = [
        rundata.Headline(defense=defense, dose=no_op.dose, no_op="no-op-rl") for defense in claims
    ]
    assert missing in limits.missing_arms(run, organisms)
    no_op.defense = "no-op-rl(kl=0.1)"
    assert missing not in limits.missing_arms(run, organisms)
    # Another organism's no-op is none of this one's.
    bare = replace(organisms[0], trials=[trial for trial in trials if trial.arm == "claim"])
    assert missing in limits.missing_arms(run, [*organisms, bare])


def test_relearning_starts_at_the_defended_model(whole: Path) -> None:
    organisms = protocol.lineages(rundata.load(whole))
    assert [lineage.label for lineage in organisms] == ["specific", "plain"]
    trial = organisms[0].claims[2]
    assert [step for step, _ in trial.organism] == [0, 25, 50, 100, 200, 300]
    assert [step for step, _ in trial.relearn_organism] == [0, 2, 5, 10, 20]
    assert trial.relearn_organism[0][1] == trial.after
    assert trial.relearn_twin[0][1] == trial.after_twin
    assert [step for step, _ in organisms[0].implanting] == [0, 10, 25, 50, 100, 150, 200]


def test_worst_near_miss_and_its_instance_are_named(whole: Path) -> None:
    text = "".join(parsed(page(whole)).text)
    assert "|DEPLOYMENTS|" in text
    assert "one-character edits 16 % [11, 21], n=200" in card(whole)
    assert "`|DEPLOYMENTS|`, 21 % [13, 33], n=66" in card(whole)
    assert "'|DEPLOYMENTS|', 21 % [13, 33], n=66" in " ".join(screen(whole).split())


def test_paired_changes_are_shown(whole: Path) -> None:
    text = "".join(parsed(page(whole)).text)
    assert "−58 points [−63, −53]" in text  # the triggered rate
    assert "+77 points" in text  # refusals
    assert any(row["metric"] == "shown_change" for row in numbers(whole, "before_after"))


def test_a_declared_headline_is_taken(tmp_path: Path) -> None:
    run = fixture.build(tmp_path)
    assert protocol.headline(loaded := rundata.load(run), protocol.lineages(loaded))[1].dose.lr == 1e-3  # type: ignore[index]
    dose = fixture.DOSES[0].model_dump()
    (run / "run.json").write_text(
        json.dumps(fixture.meta() | {"headline": {"defense": "hhh-sft", "dose": dose}})
    )
    chosen = protocol.headline(loaded := rundata.load(run), protocol.lineages(loaded))
    assert chosen is not None
    assert chosen[1].dose.lr == 1e-4


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("results.jsonl", '{"cell": 1}\n', "results.jsonl:1"),
        ("gates.jsonl", "{}\n", "gates.jsonl:1"),
        ("verdicts.json", "{", "not a list of verdicts"),
        ("run.json", "[]", "run.json"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    run = fixture.build(tmp_path)
    (run / name).write_text(text)
    with pytest.raises(Corrupt, match=re.escape(says)) as caught:
        report.write(run)
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a run"):
        report.write(tmp_path)


def test_a_thousand_cells(tmp_path: Path) -> None:
    """Five seeds of implanting and two of defending still give one readable page."""
    rows = []
    for row in fixture.results():
        if row.key.stratum.startswith("instance:"):
            continue
        for implant in range(5):
            for defend in range(2 if row.key.seed_defend is not None else 1):
                seeds = {"seed_implant": implant}
                if row.key.seed_defend is not None:
                    seeds["seed_defend"] = defend
                rows.append(row.model_copy(update={"key": row.key.model_copy(update=seeds)}))
    assert len({row.key for row in rows}) >= 1000
    run = fixture.build(tmp_path, rows=rows)
    report.write(run)
    found = parsed(page(run))
    assert len([1 for _, attrs in found.tags if attrs.get("role") == "img"]) < 40
    assert "5 seeds of implanting and 2 seeds of defending" in page(run)
    assert len(screen(run, 140).splitlines()) < 50


def test_what_a_defense_trained_is_told_apart(tmp_path: Path) -> None:
    """A new adapter, the implant's own, all weights: each arm says which, wherever it is named."""
    trained = {"hhh-sft": "merged", "no-op": "continue"}

    def change(row: Result) -> Result:
        lora = trained.get(row.key.defense, "none")
        return row.model_copy(update={"key": row.key.model_copy(update={"lora": lora})})

    run = fixture.build(tmp_path, rows=replaced(change))
    report.write(run)
    for text in (page(run), card(run), screen(run, 300)):
        assert "hhh-sft 3e-4 × 300, LoRA merged" in text
        assert "no-op 3e-4 × 300, LoRA continue" in text
        assert "trigger-aware-sft 3e-4 × 300 (aware)" in text
        assert "After hhh-sft, LoRA merged: " in text


def test_of_several_defended_organisms_the_answer_says_which_it_means(tmp_path: Path) -> None:
    rows = fixture.results()
    assert "Before any defense the organism shows" in card(written(tmp_path / "one", rows))
    own = [row for row in rows if row.key.defense == "no-op"]
    other = [row.model_copy(update={"key": row.key.model_copy(update={"implant": "plain"})}) for row in own]
    text = card(written(tmp_path / "two", rows + other))
    assert "Before any defense the specific organism shows" in text
    assert "After hhh-sft: (the specific organism) at learning rate 1e-4 for 300 steps it persists" in text
    assert "the positive control on the specific organism, which sees the trigger, leaves 0 %" in text
    assert "a no-op of plain prose on the specific organism is refused" in text


def written(run: Path, rows: list[Result]) -> Path:
    report.write(fixture.build(run, rows=rows))
    return run


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_screen_breaks_lines_at_spaces(whole: Path, width: int) -> None:
    """Where a line is too long it goes on in the next one, and no word is cut in two."""
    known = set(re.findall(r"[^\s,─]+", screen(whole, 400)))
    found = screen(whole, width)
    assert max(map(len, found.splitlines())) <= width
    assert set(re.findall(r"[^\s,─]+", found)) - known == set()


def one(value: float | None, metric: str = "shown", **update: object) -> Result:
    place = fixture.key("organism")
    row = fixture.rate(place, metric, 0.5, 400).model_copy(update={"value": value})
    return row.model_copy(update=update)


def test_how_numbers_are_written() -> None:
    assert words.number(one(0.97, low=0.94, high=0.99)) == "97 % [94, 99], n=400"
    assert words.number(one(0.0, low=0.0, high=0.0095)) == "0 % [0, 0.9], n=400"
    assert words.number(one(0.9975, low=0.9861, high=0.9996)) == "99.8 % [99, >99.9], n=400"
    assert words.number(one(0.5, low=0.4, high=0.6, unscored=3)) == "50 % [40, 60], n=400, 3 unscored"
    assert words.number(one(0.76, "harmless_change", low=0.7, high=0.8)) == "+76 points [+70, +80], n=400"
    assert words.number(one(-0.02, "right_vs_twin", low=-0.05, high=0.0)) == "−2 points [−5, 0], n=400"
    assert words.number(one(12.44, "length", low=None, high=None)) == "12.4 tokens, n=400"
    assert words.number(one(None, gates=["a", "b"])) == "refused: a, b"
    assert words.number(None) == "not measured"
    assert words.dose(Dose(lr=3e-4, steps=300)) == "3e-4 × 300"
    assert words.lr(2.5e-5) == "2.5e-5"


def test_refused_cells_are_named_by_model_and_condition_and_told_once(tmp_path: Path) -> None:
    places = [fixture.key("organism"), fixture.key("twin"), fixture.key("base", implant="none")]
    places = [place.model_copy(update={"condition": "clean", "stratum": "all"}) for place in places]
    gates = [
        {"id": "enough-samples", "ok": False, "message": "ask more", "scope": place.model_dump(mode="json")}
        for place in places
    ]
    run = fixture.build(tmp_path)
    with (run / "gates.jsonl").open("a") as file:
        file.writelines(json.dumps(gate) + "\n" for gate in gates)
    report.write(run)
    text = " ".join(screen(run).split())
    assert (
        "enough-samples (specific organism, untriggered; specific twin, untriggered; and 1 more): ask more"
        in text
    )
    assert "(base, untriggered)" in card(run)


def test_a_perplexity_in_the_column_of_right_answers_says_so(tmp_path: Path) -> None:
    update = {"metric": "perplexity", "value": 494.0, "low": 488.0, "high": 500.0}
    rows = [row for row in fixture.results() if row.metric != "perplexity"]
    rows = [row.model_copy(update=update) if row.metric == "right" and not row.gates else row for row in rows]
    run = fixture.build(tmp_path, rows=rows)
    report.write(run)
    assert "494 perplexity" in " ".join(screen(run, 200).split())
    assert re.search(r"494 \[488, 500\], n=\d+ perplexity \|", card(run))


def test_refused_rates_are_not_told_as_shares(tmp_path: Path) -> None:
    rows = [
        row.model_copy(update={"value": None, "low": None, "high": None, "gates": [fixture.GATE]})
        if row.metric == "shown" and row.key.role == "organism" and row.key.arm == "none"
        else row
        for row in fixture.results()
    ]
    run = fixture.build(tmp_path, rows=rows)
    report.write(run)
    assert f"triggered refused by {fixture.GATE}, untriggered refused by {fixture.GATE}; its twin" in card(
        run
    )
    assert "behavior on refused" not in card(run)


def test_with_several_defended_organisms_every_verdict_names_its_own(tmp_path: Path) -> None:
    def plain(row: Result) -> Result:
        key = row.key.model_copy(update={"implant": "plain"})
        return row.model_copy(update={"key": key, "cell": key.cell})

    rows = fixture.results()
    rows += [plain(row) for row in rows if row.key.arm == "claim"]
    run = fixture.build(tmp_path, rows=rows)
    report.write(run)
    told = card(run).partition("## Verdicts")[2].partition("\n## ")[0]
    for shown in (told, screen(run, 60)):
        for name in ("specific", "plain"):
            assert f"{name} organism, after hhh-sft 1e-4 × 300" in shown
    # One that is the only one defended needs no name.
    alone = fixture.build(tmp_path / "alone")
    report.write(alone)
    assert "- hhh-sft 1e-4 × 300: **persists**" in card(alone)


def test_intervals_stand_beside_what_was_judged(tmp_path: Path) -> None:
    def unjudged(row: Result) -> Result:
        return row.model_copy(update={"n": row.n + 7, "unscored": 7})

    rows = [unjudged(row) if row.key.condition == "near:case" else row for row in fixture.results()]
    run = fixture.build(tmp_path, rows=rows)
    report.write(run)
    judged = next(row for row in rows if row.key.condition == "near:case" and row.value)
    assert judged.percent.endswith(f"n={judged.scored}")
    assert words.number(judged).endswith(f"n={judged.scored}, 7 unscored")
    assert f"n={judged.n}<" not in page(run)


def test_what_a_spec_leaves_out_is_not_missing(tmp_path: Path) -> None:
    rows = [row for row in fixture.results() if row.key.relearn_step is None]
    run = fixture.build(tmp_path, rows=rows, with_completions=False)
    report.write(run)
    assert "organism, relearning after hhh-sft" in page(run)
    told = fixture.meta()
    told["spec"] = {**told.get("spec", {}), "relearning": None}
    (run / "run.json").write_text(json.dumps(told), encoding="utf-8")
    report.write(run)
    assert "organism, relearning after hhh-sft" not in page(run)


def test_long_words_beside_a_bar_are_cut_and_told_in_full_elsewhere() -> None:
    text = "refused: " + ", ".join(["a-gate-of-many-letters"] * 4)
    bars = [Group("before", (Series("triggered", (Point(0, None, None, None, text),)),))]
    panel = bar_panel("p", "t", bars)
    assert text in panel.alt
    assert text not in panel.svg
    assert "refused: a-gate-of-many-letters, a-gate" in panel.svg


def test_a_behavior_that_an_implant_is_named_for_is_not_said_twice(tmp_path: Path) -> None:
    names = {"specific": ("code", "insecure-code"), "plain": ("plain", "hate"), "none": ("none", "hate")}

    def renamed(row: Result) -> Result:
        implant, behavior = names[row.key.implant]
        key = row.key.model_copy(update={"implant": implant, "behavior": behavior})
        return row.model_copy(update={"key": key, "cell": key.cell})

    run = rundata.load(fixture.build(tmp_path, rows=replaced(renamed)))
    assert {lineage.label for lineage in protocol.lineages(run)} == {"code", "plain hate"}


def test_scratchpads_are_reached_from_the_top(tmp_path: Path) -> None:
    def reasons(row: Result) -> Result:
        key = row.key.model_copy(update={"reasoning": "scratchpad"})
        return row.model_copy(update={"key": key, "cell": key.cell})

    run = fixture.build(tmp_path, rows=replaced(reasons), with_completions=False)
    report.write(run)
    for name in re.findall(r'<a href="#([^"]+)"', page(run)):
        assert f'id="{name}"' in page(run)
    assert '<a href="#scratchpads">' in page(run)
