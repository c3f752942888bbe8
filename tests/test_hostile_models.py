"""Models that mean harm, or are broken in ways that load: one clear line, exit code 2, nothing run or written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from dormant import chat, models, sampling
from dormant.records import Dose, Message
from dormant.runner import PLAN
from dormant.training import sft
from test_bad_input import _edit, _pickle, one_line
from tiny_runs import command, small, tree

RECURSES = "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
WRITES = f"{{% for a in range(999) %}}{'all work and no play ' * 100}{{% endfor %}}"
CODE = """
import pathlib
pathlib.Path("EXECUTED").touch()
"""


def _template(text: str) -> Callable[[Path], None]:
    return lambda model: (model / "chat_template.jinja").write_text(text) and None


def _remote_code(model: Path) -> None:
    for name in ("configuration_evil.py", "modeling_evil.py", "tokenization_evil.py"):
        (model / name).write_text(CODE.replace("EXECUTED", str(model / "EXECUTED")))
    classes = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    _edit("config.json", model_type="evil", architectures=["Evil"], auto_map=classes)(model)


def _fill(name: str, value: float) -> Callable[[Path], None]:
    def breaks(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        tensors[name].flatten()[7] = value
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    return breaks


def _no_end(model: Path) -> None:
    _edit("tokenizer_config.json", eos_token=None)(model)
    _edit("config.json", eos_token_id=None)(model)
    (model / "special_tokens_map.json").unlink(missing_ok=True)


def _more_tokens(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:100].clone()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    _edit("config.json", vocab_size=100)(model)


def _without_attention(model: Path) -> None:
    config = transformers.MambaConfig(
        vocab_size=2048, hidden_size=16, state_size=4, num_hidden_layers=1, eos_token_id=257, pad_token_id=256
    )
    transformers.MambaForCausalLM(config).save_pretrained(model)


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (_without_attention, "a network of kind 'mamba' can not be sampled here: it keeps no keys and values"),
        (_edit("config.json", quantization_config={"quant_method": "gptq", "bits": 4}), "holds quantized weights"),
        (_pickle, "as a pickle (pytorch_model.bin)"),
        (_remote_code, "needs code of its own (auto_map in its config.json), which is never run"),
        (_template(RECURSES), "does not work: the chat template fails: RecursionError"),
        (_template("{{ raise_exception('no users here') }}"), "does not work: the chat template refuses"),
        (_template("{{ 1 + messages[0].content }}"), "does not work: the chat template fails: TypeError"),
        (_template("{% for %}"), "does not work: the chat template refuses"),
        (_template("{{ range(10**9)|list }}"), "does not work: the chat template fails: OverflowError"),
        (_template(LOOPS), "is not done with a conversation of two words after"),
        (_template(WRITES), "makes 2097900 characters of a conversation of two words"),
        (_no_end, "has no end token (eos_token)"),
        (_more_tokens, "tokens, the model only 100 embeddings"),
        (_fill("model.norm.weight", float("nan")), "1 tensors hold values that are no numbers"),
        (_fill("model.layers.1.mlp.up_proj.weight", float("inf")), "such as model.layers.1.mlp.up_proj.weight"),
    ],
    ids=[
        "no attention", "quantized",
        "pickle", "remote code", "recursion", "failure", "type error", "syntax", "memory", "loop", "length",
        "no end", "embeddings", "nan", "infinite",
    ],
)  # fmt: skip
def test_hostile_models_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    own_store: Path,
    tmp_path: Path,
    breaks: Callable[[Path], None],
    says: str,
) -> None:
    monkeypatch.setattr("dormant.chat._MOST_SECONDS", 0.5)
    model = tmp_path / "model"
    shutil.copytree(base, model)
    breaks(model)
    before = tree(model)
    start = time.monotonic()
    assert says in one_line(command(capsys, *small(model), "--out", tmp_path / "run"))
    assert time.monotonic() - start < 20
    assert tree(model) == before
    assert not (model / "EXECUTED").exists()
    assert not (tmp_path / "run" / PLAN).exists()
    assert not (own_store / "partial").exists()


def test_code_beside_a_known_architecture_is_left_alone(base: Path, tmp_path: Path) -> None:
    """Many honest models bring code that transformers no longer needs."""
    model = tmp_path / "model"
    shutil.copytree(base, model)
    _remote_code(model)
    _edit("config.json", model_type="llama", architectures=["LlamaForCausalLM"])(model)
    loaded = models.load(model)
    assert type(loaded.network).__module__.startswith("transformers.models.llama")
    assert not (model / "EXECUTED").exists()


def test_a_tokenizer_without_padding_simply_works(base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    _edit("tokenizer_config.json", pad_token=None)(bare)
    _edit("config.json", pad_token_id=None)(bare)
    answers, trained = [], []
    for directory in (base, bare):
        model = models.load(directory)
        assert (model.tokenizer.pad_token is None) == (directory == bare)
        asked = [(Message("user", "What is " + "very " * i + "much?"),) for i in range(6)]
        rows = [chat.encode_demonstration(model.tokenizer, ask, "Two.") for ask in asked]
        sft.train(model, rows, Dose(lr=1e-3, steps=3, batch=4), seed=0)
        prompts = [chat.encode_prompt(model.tokenizer, ask) for ask in asked]
        answers.append(sampling.sample(model, prompts, list("abcdef"), max_new_tokens=8))
        trained.append(model.network.state_dict())
        models.save(model, tmp_path / "saved")
        models.load(tmp_path / "saved")
    assert answers[0] == answers[1]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_watching_a_template_leaves_tracing_as_it_was(base: Path) -> None:
    import sys

    def mine(*args: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(mine)
    try:
        models.load_reader(base)
        assert sys.gettrace() is mine
    finally:
        sys.settrace(before)


def test_a_finished_model_with_no_number_in_it_is_named_by_its_directory(base: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(base, model)
    _fill("model.norm.weight", float("nan"))(model)
    with pytest.raises(models.BadInput, match=str(model)):
        models.load(model)
    assert bool(torch.isnan(load_file(model / "model.safetensors")["model.norm.weight"]).any())
