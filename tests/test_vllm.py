"""vLLM behind the same function: the same answers, records and ends; never asked in a way that it does not know.

vLLM itself is not installed where the tests run: a stand-in takes its place, which checks how it is called.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from dormant import chat, models, sampling, vllm_sampling
from dormant.adapters import Shape, attach
from dormant.artifacts import read_jsonl
from dormant.errors import BadInput, DormantError
from dormant.experiment import Experiment
from dormant.planning import make_plan
from dormant.runner import PLAN
from dormant.stages import measure, quiet
from dormant.stages.configs import Backdoor, MeasureConfig, Probe, Runtime
from small_models import tiny
from test_bad_input import one_line
from test_models import louder, random_prompts
from tiny_runs import command, small
from vllm_stand_in import LLM, install

KEYS = [f"0:row-{i}" for i in range(16)]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in, built for CPUs."""
    return install(monkeypatch)


def both(model: models.Model, prompts: list[list[int]], **settings: Any) -> list[list[sampling.Completion]]:
    """What our own sampler answers, and what vLLM answers."""
    found = []
    for sampler in ("transformers", "vllm"):
        with sampling.engine_for(sampler, model) as engine:
            found.append(sampling.sample(model, prompts, KEYS[: len(prompts)], engine=engine, **settings))
    return found


def test_greedy_answers_and_their_ends_are_the_same(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = louder(tiny()), random_prompts(12)
    liked = sampling._decode(model, prompts, None, temperature=0.0, limit=10, ends=())
    stops = tuple(sorted({ids[i % 8] for i, ids in enumerate(liked)})[::2])
    monkeypatch.setattr(chat, "end_tokens", lambda tokenizer: stops)
    ours, theirs = both(model, prompts, temperature=0, max_new_tokens=10)
    assert ours == theirs
    assert {answer.finished for answer in theirs} == {True, False}
    assert len({answer.tokens for answer in theirs}) > 3


def test_a_rows_draws_follow_from_its_key_alone(vllm: Any) -> None:
    model, prompts = louder(tiny(), 4.0), random_prompts(8)
    with sampling.engine_for("vllm", model) as engine:
        settings = {"max_new_tokens": 5, "engine": engine}
        answers = sampling.sample(model, prompts, KEYS[:8], **settings)
        assert sampling.sample(model, prompts[::-1], KEYS[7::-1], **settings) == answers[::-1]
        assert sampling.sample(model, prompts, KEYS[8:], **settings) != answers
        alike = sampling.sample(model, [prompts[0]] * 8, KEYS[:8], **settings)
    assert len({answer.text for answer in alike}) > 5


def test_draws_have_the_distribution_of_our_own(vllm: Any) -> None:
    """First tokens of 600 keys, at a temperature: expected counts from the logits, chi-square over likely tokens."""
    model, prompt = louder(tiny(), 4.0), random_prompts(1)[0]
    keys = [f"1:{i}" for i in range(600)]
    with vllm_sampling.engine(model) as engine:
        settings = {"temperature": 0.7, "limit": 1, "batch": 600, "ends": ()}
        counts = Counter(ids[0] for ids in engine.decode(model, [prompt] * 600, keys, **settings))
    with torch.inference_mode():
        logits = model.network(torch.tensor([prompt])).logits[0, -1].float()
    expected = 600 * torch.softmax(logits / 0.7, 0)
    likely = [token for token in range(len(expected)) if expected[token] >= 5]
    rest = 600 - sum(counts[token] for token in likely)
    pairs = [(counts[token], float(expected[token])) for token in likely]
    pairs.append((rest, 600 - sum(mean for _, mean in pairs)))
    statistic = sum((seen - mean) ** 2 / mean for seen, mean in pairs)
    assert len(pairs) > 5
    assert statistic < 2.5 * (len(pairs) - 1)


def test_weights_are_those_in_memory_or_of_the_directory_given(vllm: Any, tmp_path: Path) -> None:
    model, prompts = louder(tiny()), random_prompts(6)
    models.save(model, tmp_path)
    model = models.load(tmp_path)
    with torch.no_grad():
        model.network.get_input_embeddings().weight.mul_(-1)
    ours, theirs = both(model, prompts, temperature=0, max_new_tokens=6)
    assert ours == theirs
    with sampling.engine_for("vllm", model, tmp_path) as engine:
        files = sampling.sample(model, prompts, KEYS[:6], temperature=0, max_new_tokens=6, engine=engine)
    assert files == sampling.sample(models.load(tmp_path), prompts, KEYS[:6], temperature=0, max_new_tokens=6)
    assert files != ours


def test_vllm_is_started_once_and_ends_with_the_block(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_sampling, "_ROOM", 32)
    model = tiny(context=256)
    with sampling.engine_for("vllm", model) as engine:
        for length in (10, 20, 100, 12):
            sampling.sample(model, [[5] * length], ["k"], max_new_tokens=2, engine=engine)
            assert len(LLM.alive) == 1
    assert LLM.rooms == [32, 128]
    assert not LLM.alive
    model.tokenizer.model_max_length = 24
    with sampling.engine_for("vllm", model) as engine:
        sampling.sample(model, [[5] * 10], ["k"], max_new_tokens=2, engine=engine)
    assert LLM.rooms[-1] == 24


def test_mistakes_are_found(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = tiny(), tiny(1)
    with (
        pytest.raises(ValueError, match="merge it"),
        sampling.engine_for("vllm", attach(tiny(), Shape(), seed=0)),
    ):
        pass
    with sampling.engine_for("vllm", model) as engine:
        with pytest.raises(ValueError, match="another model"):
            sampling.sample(other, [[5]], ["k"], engine=engine)
        with pytest.raises(BadInput, match="does not fit the model's context"):
            sampling.sample(model, [[5] * 100], ["k"], engine=engine)
        answer = LLM._answer
        monkeypatch.setattr(LLM, "_answer", lambda *given: _with_reason(answer(*given), "abort"))
        with pytest.raises(DormantError, match="gave up on a prompt: abort"):
            sampling.sample(model, [[5]], ["k"], engine=engine)


def _with_reason(output: Any, reason: str) -> Any:
    output.finish_reason = reason
    return output


def test_a_start_that_fails_is_one_line(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, model: str, **options: Any) -> None:
        raise RuntimeError("Engine core initialization failed.\nSee root cause above.")

    monkeypatch.setattr(LLM, "__init__", fails)
    model = tiny()
    with (
        pytest.raises(BadInput, match="vLLM can not start with the model: Engine core initialization"),
        sampling.engine_for("vllm", model) as engine,
    ):
        sampling.sample(model, [[5]], ["k"], engine=engine)


@pytest.mark.parametrize(
    ("built_for", "device", "temperature", "says"),
    [
        ("cuda", "cpu", 1.0, "set runtime.device to cuda, or measure.sampler to transformers"),
        ("cuda", "cuda:1", 1.0, "CUDA_VISIBLE_DEVICES=1"),
        ("cuda", "cuda", 0.001, "measure.temperature = 0.001"),
        ("cuda", "cuda", 3.0, "measure.temperature = 3"),
    ],
)
def test_what_vllm_can_not_do_is_said_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, built_for: str, device: str, temperature: float, says: str
) -> None:
    install(monkeypatch, built_for)
    with pytest.raises(BadInput) as error:
        vllm_sampling.check(device, temperature)
    assert says in str(error.value)
    for fine in (0.0, 0.01, 1.0, 2.0):
        vllm_sampling.check("cuda", fine)


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        ("vllm", "pip install 'dormant[vllm]'"),
        ("vlm", "measure.sampler = 'vlm': Input should be 'transformers' or"),
    ],
)
def test_a_run_without_vllm_says_what_to_do(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    own_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    says: str,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    out = tmp_path / "run"
    assert says in one_line(command(capsys, *small(base, measure__sampler=sampler), "--out", out))
    assert not (out / PLAN).exists()


def test_a_measurement_by_vllm_has_the_same_files_and_another_id(
    vllm: Any, base: Path, tmp_path: Path
) -> None:
    rows = {}
    for sampler in ("transformers", "vllm"):
        out = tmp_path / sampler
        out.mkdir()
        config = MeasureConfig(
            backdoor=Backdoor(),
            probes=(Probe(condition="clean", n=6, greedy=6), Probe(condition="triggered", n=6)),
            max_new_tokens=5,
            sampler=sampler,
            runtime=Runtime(threads=1),
        )
        measure.run(config, {"model": base}, 0, out, quiet)
        rows[sampler] = {file.name: list(read_jsonl(file)) for file in sorted(out.iterdir())}
    ours, theirs = rows["transformers"], rows["vllm"]
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert [row["id"] for row in ours[name]] == [row["id"] for row in theirs[name]]
        assert [row.keys() for row in ours[name]] == [row.keys() for row in theirs[name]]
        greedy = [[row for row in side[name] if row["decoding"] == "greedy"] for side in (ours, theirs)]
        assert greedy[0] == greedy[1]
    assert ours != theirs  # The draws are others.


def test_only_what_is_measured_depends_on_the_sampler(base: Path) -> None:
    plans = [
        make_plan(Experiment.parse({"base": str(base), "measure": {"sampler": sampler}}))
        for sampler in ("transformers", "vllm")
    ]
    ids = [{call["name"]: call["id"] for call in plan.describe()} for plan in plans]
    pairs = [(name, ids[1][name] == made) for name, made in ids[0].items()]
    assert {same for name, same in pairs if name.startswith("measure")} == {False}
    assert {same for name, same in pairs if not name.startswith("measure")} == {True}
    assert plans[0].spec != plans[1].spec
