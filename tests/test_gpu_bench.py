"""The measurements for a GPU: their arithmetic, their budget, and that they still run where there is none."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dormant import models, stats
from dormant.pocket import SIZES
from dormant.pocket.bases import TOKENIZER
from dormant.pocket.sizes import Size

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("gpu")


def bench(gpu: Any, place: Path, seconds: float = 1e9, **settings: Any) -> Any:
    budget = gpu.Budget(seconds)
    return gpu.Bench("cpu", **{"tiny": True, "repeats": 1, "budget": budget, "scratch": place, **settings})


def test_operations_of_a_token_are_those_that_torch_counts(gpu: Any) -> None:
    size, length = SIZES["pocket-300k"], 64
    model = models.new(
        TOKENIZER,
        seed=0,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.network(torch.arange(length)[None], use_cache=False)
    # Scores and their use, over whole rows, of which causal attention needs half.
    attention = 2 * 2 * length * length * size.hidden * size.layers
    needed = 3 * (counter.get_total_flops() - attention / 2)
    assert gpu.flops_per_token(size, length) * length == pytest.approx(needed, rel=1e-3)


def test_the_sizes_are_what_they_are_called(gpu: Any) -> None:
    named = {"100M": 100e6, "300M": 300e6, "1B": 1e9}
    assert {name: size.parameters for name, (size, _) in gpu.RUNGS.items()} == pytest.approx(named, rel=0.05)


@pytest.mark.parametrize(("their_loss", "same"), [(5.05, True), (5.3, False)])
def test_throughput_is_tokens_over_the_median_step(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, their_loss: float, same: bool
) -> None:
    laps = iter([[9.0, 9.0, 0.5, 0.4, 0.6], [9.0, 9.0, 1.0, 1.0, 7.0]])
    losses = iter([7.0, 5.0, their_loss])
    monkeypatch.setattr(gpu, "Stopwatch", lambda device: SimpleNamespace(mark=None, laps=lambda: next(laps)))
    monkeypatch.setattr(gpu, "mean_loss", lambda model, rows: next(losses))
    for name in ("train_ours", "train_stock"):
        monkeypatch.setattr(gpu, name, lambda *given: None)
    size = SIZES["pocket-300k"]
    figure = gpu.fine_tuning_at(bench(gpu, tmp_path), "300k", size, 4, 8, 6, peak=1e9)
    assert (figure.ours, figure.stock, figure.ratio) == (64.0, 32.0, 2.0)
    assert figure.mfu == pytest.approx(64 * gpu.flops_per_token(size, 8) / 1e9)
    assert figure.stock_mfu == pytest.approx(figure.mfu / 2)
    assert figure.same is same


def test_the_budget_stops_between_figures_and_keeps_what_is_there(gpu: Any, tmp_path: Path) -> None:
    ticks = count()
    budget = gpu.Budget(6, clock=lambda: next(ticks))  # Each look takes a second.
    kept: list[tuple[int, list[str]]] = []

    def item(bench: Any) -> Iterator[Any]:
        for number in range(3):
            bench.budget.check()
            yield gpu.Figure("item", str(number))

    figures, left = gpu.measure(
        {"first": item, "second": item, "third": item},
        bench(gpu, tmp_path, budget=budget),
        lambda figures, left: kept.append((len(figures), list(left))),
    )
    assert [figure.what for figure in figures] == ["0", "1", "2"]
    assert left == ["second", "third"]
    assert kept == [
        (1, ["first", "second", "third"]),
        (2, ["first", "second", "third"]),
        (3, ["first", "second", "third"]),
        (3, ["second", "third"]),
    ]


def test_an_item_that_fails_is_told_and_the_next_one_runs(gpu: Any, tmp_path: Path) -> None:
    def fails(bench: Any) -> Iterator[Any]:
        yield gpu.Figure("first", "small")
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate much.")

    def works(bench: Any) -> Iterator[Any]:
        yield gpu.Figure("second", "small")

    items = {"first": fails, "second": works}
    figures, left = gpu.measure(items, bench(gpu, tmp_path), lambda figures, left: None)
    assert [(figure.item, figure.what, figure.same) for figure in figures] == [
        ("first", "small", True),
        ("first", "failed", False),
        ("second", "small", True),
    ]
    assert figures[1].check == "CUDA out of memory."
    assert left == ["first"]


def test_two_runs_agree_by_verdict_and_by_interval(gpu: Any) -> None:
    def run(verdict: str, *hits: int) -> Any:
        rows = [
            SimpleNamespace(key=key, metric="shown", interval="wilson", low=found.low, high=found.high)
            for key, found in enumerate(stats.wilson(hit, 100) for hit in hits)
        ]
        judged = SimpleNamespace(as_json=lambda: {"verdict": verdict, "why": f"{hits}"})
        return SimpleNamespace(verdicts=[judged], results=rows)

    alike = gpu.agreement(run("persists", 90, 5), run("persists", 93, 4))
    assert (alike.same, alike.check) == (
        True,
        "1 of 1 verdicts the same (1 persists); 2 of 2 rates with overlapping intervals",
    )
    unlike = gpu.agreement(run("persists", 90, 5), run("destroyed", 93, 40))
    assert (unlike.same, unlike.check) == (
        False,
        "0 of 1 verdicts the same (1 persists); 1 of 2 rates with overlapping intervals",
    )


def test_the_random_model_has_the_size_that_is_asked_for(gpu: Any, tmp_path: Path) -> None:
    size = Size(hidden=32, layers=2, heads=2, intermediate=64)
    place = bench(gpu, tmp_path).model("some", size)
    assert sum(weight.numel() for weight in models.load(place).network.parameters()) == size.parameters


def run_script(place: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    out = place / "gpu.json"
    command = [sys.executable, SCRIPT, "--tiny", "--repeats", "1", "--out", out, *arguments]
    said = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert said.returncode == 0, said.stderr
    return json.loads(out.read_text()), said.stdout


@pytest.mark.slow
def test_the_script_runs_at_tiny_sizes(tmp_path: Path) -> None:
    found, said = run_script(tmp_path)
    assert found["not_finished"] == []
    assert [figure["item"] for figure in found["figures"]] == [
        *["same results"] * 3,
        *["fine-tuning"] * 2,
        "sampling",
    ]
    training, sampling = found["figures"][-2:]
    assert training["same"]
    assert sampling["same"]
    assert 0 < training["mfu"] < 1
    assert training["ratio"] == pytest.approx(training["ours"] / training["stock"])
    assert "fine-tuning" in said


@pytest.mark.slow
def test_the_script_stops_at_its_budget(tmp_path: Path) -> None:
    found, said = run_script(tmp_path, "--budget-s", "1")
    assert found["not_finished"] == ["same results", "fine-tuning", "sampling"]
    assert "not or not all done, within 1 s: same results" in said
