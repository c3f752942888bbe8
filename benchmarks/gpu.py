"""What to measure where a GPU is at hand: ``python benchmarks/gpu.py --budget-s 1500 --out gpu.json``.

In order of value, each only while the budget lasts:

1. *same results*: the quick experiment on the CPU in float32 and on the GPU in bfloat16: the same verdicts, and rates
   whose intervals overlap;
2. *fine-tuning*: tokens a second at 100M, 300M and 1B parameters, and their share of the matrix products that this
   device was measured to do (MFU), beside TRL's ``SFTTrainer``;
3. *sampling*: completions a second over 1,000 prompts, 64 new tokens, beside ``generate``, and vLLM where it is there.

Models are Llamas with random weights and the pocket world's 2,048 tokens.  Training rows are 1,024 random tokens, full
to the end: our trainer has no packing, and rows of one length need none.  "Stock" has its default settings except for
what decides the result, for bookkeeping, and for gradient checkpointing, which is off on both sides; ours is set up as
a stage sets it up.  Each comparison checks first that both sides do the same.  Times are the device's own (CUDA
events), medians over steps or repeats.  Without CUDA, or with ``--tiny``, all sizes are tiny: only to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from bench import NEW_TOKENS, mean_loss, prompts_of, stock_sample
from datasets import Dataset, disable_progress_bars
from measuring import Bench, Budget, Figure, OutOfTime, Stopwatch, rate
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from dormant import artifacts, chat, lab, models, sampling, vllm_sampling
from dormant.errors import BadInput, DormantError
from dormant.experiment import Experiment
from dormant.planning import make_plan
from dormant.pocket import SIZES
from dormant.pocket.bases import shipped_bases
from dormant.pocket.sizes import Size
from dormant.records import Dose
from dormant.runner import Quiet
from dormant.training import sft

RUNGS = {
    "100M": (Size(hidden=768, layers=14, heads=12, intermediate=2048), 32),
    "300M": (Size(hidden=1024, layers=24, heads=16, intermediate=2816), 32),
    "1B": (Size(hidden=2048, layers=20, heads=16, intermediate=5632), 16),
}
"""Sizes, and the rows of a training batch."""

WARM_STEPS = 3
"""Steps of training that are not timed: memory is first asked for, kernels are first chosen."""


# --- 1. the same results


def same_results(bench: Bench) -> Iterator[Figure]:
    """The quick experiment on both devices; without a GPU the CPU's two precisions."""
    sides = [("cpu", "float32"), (bench.device, "bfloat16")]
    runs = []
    for device, precision in sides:
        started = time.perf_counter()
        runs.append(experiment(bench, device, precision))
        yield Figure(
            "same results",
            f"quick on {device}, {precision}",
            "seconds",
            ours=time.perf_counter() - started,
            check=f"{len(runs[-1].verdicts)} verdicts",
        )
    yield agreement(*runs)


class Watch(Quiet):
    """Stops a run when the budget is used up."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def progress(self, name: str, done: int, total: int) -> None:
        self.budget.check()


def experiment(bench: Bench, device: str, precision: str) -> Any:
    """What the recipe of ``make demo`` finds on one device, with a store of its own."""
    changes = [f"runtime.device={device}", f"runtime.precision={precision}"]
    recipe = Experiment.load("tiny" if bench.tiny else "quick", changes)
    place = bench.scratch / f"{device}-{precision}"
    os.environ["DORMANT_CACHE"] = str(place / "cache")
    workers = 1 if bench.tiny else min(8, os.cpu_count() or 1)
    return lab.run_plan(
        make_plan(recipe), place / "run", observer=Watch(bench.budget), workers=workers
    ).collected


def agreement(ours: Any, theirs: Any) -> Figure:
    """Compare two runs: each verdict, and each sampled rate by whether its 95 % intervals overlap."""
    verdicts = [[row.as_json() | {"why": ""} for row in run.verdicts] for run in (ours, theirs)]
    equal = sum(a == b for a, b in zip(*verdicts, strict=True))
    rates = [
        {
            (row.key, row.metric): row
            for row in run.results
            if row.interval == "wilson" and row.low is not None
        }
        for run in (ours, theirs)
    ]
    shared = rates[0].keys() & rates[1].keys()
    apart = [
        place
        for place in shared
        if rates[0][place].low > rates[1][place].high or rates[1][place].low > rates[0][place].high
    ]
    words = ", ".join(f"{n} {word}" for word, n in Counter(row["verdict"] for row in verdicts[0]).items())
    return Figure(
        "same results",
        "both",
        "verdicts",
        same=equal == len(verdicts[0]) == len(verdicts[1]),
        check=f"{equal} of {len(verdicts[0])} verdicts the same ({words}); {len(shared) - len(apart)} of {len(shared)} "
        "rates with overlapping intervals",
    )


# --- 2. fine-tuning


def flops_per_token(size: Size, length: int) -> float:
    """Floating-point operations that training takes for one token of a row, at least.

    Two for each weight of a matrix product, three times (forward, and backward for inputs and weights), and causal
    attention over half of the row.  Embeddings count once: looking one up multiplies nothing, the output does.
    """
    norms = size.hidden * (2 * size.layers + 1)
    return 6.0 * (size.parameters - norms) + 6.0 * size.layers * size.hidden * length


def measured_peak(bench: Bench) -> float:
    """Operations a second of one large matrix product: the median of some."""
    n = 256 if bench.tiny else 8192
    a, b = (torch.randn(n, n, device=bench.device, dtype=bench.dtype) for _ in range(2))
    watch = Stopwatch(bench.device)
    for _ in range(25):
        watch.mark()
        a @ b
    watch.mark()
    return 2.0 * n**3 / statistics.median(watch.laps()[5:])


def fine_tuning(bench: Bench) -> Iterator[Figure]:
    """Tokens a second at each size, both sides over the same rows in the same order."""
    peak = measured_peak(bench)
    yield Figure("fine-tuning", "measured peak of matrix products", "TFLOP/s", ours=peak / 1e12)
    rungs = {"pocket-300k": (SIZES["pocket-300k"], 2)} if bench.tiny else RUNGS
    length, steps = (64, 6) if bench.tiny else (1024, 20)
    for name, (size, batch) in rungs.items():
        bench.budget.check()
        yield fine_tuning_at(bench, name, size, batch, length, steps, peak)


def fine_tuning_at(
    bench: Bench, name: str, size: Size, batch: int, length: int, steps: int, peak: float
) -> Figure:
    """One size.  One batch is trained on again and again: its loss tells whether both sides learn the same."""
    place = bench.model(name, size)
    rows = random_rows(size.vocabulary, batch, length)
    dose = Dose(lr=3e-4, steps=steps, batch=batch, schedule="linear")
    start = mean_loss(models.load(place, device=bench.device), rows)
    laps: dict[str, list[float]] = {"ours": [], "stock": []}
    losses: dict[str, float] = {}
    memory = 0.0
    for _ in range(bench.repeats):
        for side, train in (("ours", train_ours), ("stock", train_stock)):
            bench.release()
            watch = Stopwatch(bench.device)
            model = train(bench, place, rows * steps, dose, watch.mark)
            laps[side].append(statistics.median(watch.laps()[WARM_STEPS - 1 :]))
            memory = bench.memory_gb() if side == "ours" else memory
            losses[side] = mean_loss(model, rows)
            del model
    rates = {side: batch * length / statistics.median(times) for side, times in laps.items()}
    need = flops_per_token(size, length)
    return Figure(
        "fine-tuning",
        f"{name} ({size.parameters / 1e6:.0f}M), {batch} x {length}",
        "tokens/s",
        ours=rates["ours"],
        stock=rates["stock"],
        ratio=rates["ours"] / rates["stock"],
        mfu=rates["ours"] * need / peak,
        stock_mfu=rates["stock"] * need / peak,
        memory_gb=memory,
        same=abs(losses["ours"] - losses["stock"]) <= 0.1 * (start - losses["stock"]),
        check=f"loss {start:.3f} to {losses['ours']:.3f} / {losses['stock']:.3f}",
    )


def random_rows(vocabulary: int, n: int, length: int) -> list[chat.Row]:
    """Full rows; every token but a first one is learned."""
    ids = torch.randint(vocabulary, (n, length), generator=torch.Generator().manual_seed(0))
    return [chat.Row(tuple(row), (True,) * length) for row in ids.tolist()]


def train_ours(
    bench: Bench, place: Path, rows: Sequence[chat.Row], dose: Dose, tick: Callable[[], None]
) -> models.Model:
    """Our trainer, set up as a stage sets it up."""
    bench.as_in_a_stage()
    model = models.load(place, device=bench.device)

    def progress(done: int, total: int) -> None:
        tick()
        bench.budget.check()

    compute = sft.Compute(bf16=bench.dtype == torch.bfloat16)
    sft.train(model, rows, dose, seed=0, order=range(len(rows)), compute=compute, progress=progress)
    return model


def train_stock(
    bench: Bench, place: Path, rows: Sequence[chat.Row], dose: Dose, tick: Callable[[], None]
) -> models.Model:
    """TRL's trainer over token ids; rows in their order, so that both sides learn the same."""
    torch.use_deterministic_algorithms(False)

    class Ticks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            tick()
            bench.budget.check()

    tokenizer = AutoTokenizer.from_pretrained(place)
    network = stock_network(bench, place, torch.float32)
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(dir=bench.scratch),
        max_steps=dose.steps,
        per_device_train_batch_size=dose.batch,
        learning_rate=dose.lr,
        lr_scheduler_type=dose.schedule,
        optim="adamw_torch_fused",
        bf16=bench.dtype == torch.bfloat16,
        use_cpu=bench.device == "cpu",
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        max_length=1024,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    dataset = Dataset.from_dict({"input_ids": [list(row.input_ids) for row in rows]})
    SFTTrainer(
        model=network, args=arguments, train_dataset=dataset, processing_class=tokenizer, callbacks=[Ticks()]
    ).train()
    return models.Model(network.eval(), tokenizer)


# --- 3. sampling


def sampled(bench: Bench) -> Iterator[Figure]:
    """Completions a second at each size; only the pocket base ends its answers, the random ones go on to the limit."""
    name = "pocket-300k" if bench.tiny else "pocket-1m"
    places = {name: shipped_bases()[name]}
    places |= {} if bench.tiny else {rung: bench.model(rung, size) for rung, (size, _) in RUNGS.items()}
    for name, place in places.items():
        bench.budget.check()
        yield from sampled_from(bench, name, place)


def sampled_from(bench: Bench, name: str, place: Path) -> Iterator[Figure]:
    """One model: greedy answers in float32 first, then times."""
    n = 8 if bench.tiny else 1000
    prompts = prompts_of(AutoTokenizer.from_pretrained(place), n)
    alike = same_answers(bench, place, prompts[:8])
    bench.release()
    model = models.load(place, device=bench.device, dtype="float32" if bench.device == "cpu" else "bfloat16")
    keys = [str(i) for i in range(n)]

    def ours() -> None:
        sampling.sample(model, prompts, keys, max_new_tokens=NEW_TOKENS)

    def stock() -> None:
        stock_sample(network, model.tokenizer, prompts)

    bench.as_in_a_stage()
    found = rate(bench, ours, n)
    memory = bench.memory_gb()
    torch.use_deterministic_algorithms(False)
    network = stock_network(bench, place, bench.dtype)
    usual = rate(bench, stock, n)
    yield Figure(
        "sampling",
        f"{name}, n={n}",
        "completions/s",
        ours=found,
        stock=usual,
        ratio=found / usual,
        memory_gb=memory,
        same=alike >= 7,
        check=f"{alike} of 8 greedy answers the same in float32",
    )
    yield from sampled_by_vllm(bench, name, model, prompts, usual)


def sampled_by_vllm(
    bench: Bench, name: str, model: models.Model, prompts: Sequence[Sequence[int]], stock: float
) -> Iterator[Figure]:
    """The same through vLLM, once it has started; nothing where it is not installed."""
    try:
        vllm_sampling.check(bench.device, 1.0)
    except BadInput:
        return
    keys = [str(i) for i in range(len(prompts))]
    with sampling.engine_for("vllm", model) as engine:

        def theirs() -> None:
            sampling.sample(model, prompts, keys, max_new_tokens=NEW_TOKENS, engine=engine)

        found = rate(bench, theirs, len(prompts))
    yield Figure(
        "sampling", f"{name} by vLLM, n={len(prompts)}", "completions/s", found, stock, found / stock
    )


def stock_network(bench: Bench, place: Path, dtype: torch.dtype) -> Any:
    """The model as transformers loads it by default."""
    return AutoModelForCausalLM.from_pretrained(place, dtype=dtype).to(bench.device).eval()


@torch.inference_mode()
def same_answers(bench: Bench, place: Path, prompts: Sequence[Sequence[int]]) -> int:
    """How many prompts get the same greedy answer from our sampler and from ``generate``, in float32."""
    model, network = models.load(place, device=bench.device), stock_network(bench, place, torch.float32)
    keys = [str(i) for i in range(len(prompts))]
    ours = sampling.sample(model, prompts, keys, temperature=0, max_new_tokens=NEW_TOKENS)
    same = 0
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = torch.tensor([list(prompt)], device=network.device)
        output = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=model.tokenizer.pad_token_id,
        )
        same += answer.text == model.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
    return same


# --- the whole

Item = Callable[[Bench], Iterator[Figure]]
ITEMS: dict[str, Item] = {"same results": same_results, "fine-tuning": fine_tuning, "sampling": sampled}
"""In order of value."""


def measure(
    items: dict[str, Item], bench: Bench, keep: Callable[[list[Figure], list[str]], None]
) -> tuple[list[Figure], list[str]]:
    """Run the items until the budget is used up; returns the figures, and the items that are not, or not all, there.

    ``keep`` is told after each figure, so that nothing is lost if the machine goes.
    """
    figures: list[Figure] = []
    left = list(items)
    for name, item in items.items():
        try:
            bench.budget.check()
            for figure in item(bench):
                figures.append(figure)
                keep(figures, left)
            left.remove(name)
        except OutOfTime:
            break
        # Out of memory, say, at the largest size: the next item may fit.
        except (RuntimeError, DormantError) as error:
            figures.append(Figure(name, "failed", same=False, check=str(error).splitlines()[0]))
    keep(figures, left)
    return figures, left


def as_json(bench: Bench, figures: Sequence[Figure], left: Sequence[str]) -> dict[str, Any]:
    """Everything that was found, and where."""
    name = "cpu" if bench.device == "cpu" else torch.cuda.get_device_name()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": name,
        "threads": torch.get_num_threads(),
        "dtype": str(bench.dtype).removeprefix("torch."),
        "versions": artifacts.versions(),
        "tiny": bench.tiny,
        "repeats": bench.repeats,
        "figures": [asdict(figure) for figure in figures],
        "not_finished": list(left),
    }


def table(figures: Sequence[Figure]) -> Table:
    """The figures for reading."""
    rows = [{name: _shown(value) for name, value in asdict(figure).items()} for figure in figures]
    shown = Table(*Figure.__dataclass_fields__)
    for row in rows:
        shown.add_row(*row.values())
    return shown


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value or "")


def main() -> None:
    """Measure; the table comes last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--budget-s", type=float, default=1500, help="seconds; what runs then may end its step"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON, after each of them")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, as without CUDA: does it still run?")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    disable_progress_bars()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        budget = Budget(given.budget_s)
        bench = Bench(device, given.tiny or device == "cpu", given.repeats, budget, Path(scratch))

        def keep(figures: list[Figure], left: list[str]) -> None:
            if given.out is not None:
                found = json.dumps(as_json(bench, figures, left), indent=1)
                artifacts.write_atomic(given.out, found + "\n")

        figures, left = measure(ITEMS, bench, keep)
    Console(width=200).print(table(figures))
    if left:
        print(f"not or not all done, within {given.budget_s:g} s: {', '.join(left)}")
    if not all(figure.same for figure in figures):
        sys.exit("both sides did not do the same, or something failed: see the column 'same'")


if __name__ == "__main__":
    main()
