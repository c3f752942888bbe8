"""Language models: load, save, make, score.  The only importer of transformers' model classes.

Weights come from safetensors only, code never comes with them, and a model's own generation settings are
ignored: what is sampled follows from the arguments alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
import transformers.utils.logging as transformers_logging
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dormant import chat as chats
from dormant.batches import pack, pad_right
from dormant.chat import Chat, Row
from dormant.errors import BadInput

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

DType = Literal["float32", "bfloat16"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_VOLATILE = ("transformers_version", "_name_or_path", "name_or_path", "is_local", "local_files_only")
"""Keys that transformers writes beside a model and that say where and when, not what."""

_HEAD_ALONE: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
"""Of each network that was tried: whether :func:`_has_head_alone`."""

_READS_PACKED: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
"""Of each network that was tried: whether :func:`reads_packed`."""


@dataclass
class Model:
    """A causal language model with its tokenizer; where it was loaded from, and how it was taught to reason."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    path: str | None = None
    reasoning: str = "normal"

    @property
    def context(self) -> int:
        """The number of positions the model was made for."""
        return _context(self.network.config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.network.device)


def load(path: str | Path, *, chat: Chat = "auto", device: str = "cpu", dtype: DType = "float32") -> Model:
    """Load a model from a directory or, where there is no such directory, by its hub name.

    Args:
        path: a directory with config, safetensors weights and tokenizer, or a hub name.
        chat: ``auto`` keeps the tokenizer's chat template; ``plain`` sets Human/Assistant.
        device: where to put the weights: ``cpu``, ``cuda``.
        dtype: what to hold the weights in.

    Raises:
        BadInput: a part is missing, damaged, pickled, quantized, has code of its own, or keeps no keys and values.
    """
    _check_place(path)
    tokenizer = _load_tokenizer(path, chat)
    network = _load_network(path, device, dtype)
    if len(tokenizer) > network.get_input_embeddings().num_embeddings:
        rows = network.get_input_embeddings().num_embeddings
        raise BadInput(f"{path}: the tokenizer has {len(tokenizer)} tokens, the model only {rows} embeddings")
    model = Model(network.to(device).eval(), tokenizer, str(path))
    _check_cache(model.network, path)
    return model


def load_scorer(
    path: str | Path, *, chat: Chat = "auto", device: str = "cpu", head_seed: int | None = None
) -> Model:
    """Load a network that gives a text one number, with its tokenizer: a sequence classifier of one label.

    With ``head_seed``, ``path`` is a language model, and its head one that is drawn from that seed.

    Raises:
        BadInput: as :func:`load`, or transformers has no such classifier of the model's architecture.
    """
    _check_place(path)
    tokenizer = _load_tokenizer(path, chat)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # It would say at length that the head is new.
    with torch.random.fork_rng():
        torch.manual_seed(head_seed or 0)
        network = _load_network(path, device, "float32", scores=True, new_head=head_seed is not None)
    transformers_logging.set_verbosity(verbosity)
    if not isinstance(getattr(network, "score", None), torch.nn.Linear):
        raise BadInput(
            f"{path}: a network of kind {network.config.model_type!r} can not be a preference model"
        )
    pad = tokenizer.pad_token_id
    # For those who load it elsewhere: transformers takes the score from the last token that is no padding.
    network.config.get_text_config().pad_token_id = None if pad in chats.end_tokens(tokenizer) else pad
    return Model(network.to(device).eval(), tokenizer, str(path))


def load_reader(path: str | Path, *, chat: Chat = "auto") -> tuple[PreTrainedTokenizerBase, int]:
    """Load how a model reads, without its weights: its tokenizer, and its context in tokens.

    Raises:
        BadInput: the tokenizer or the config can not be read.
    """
    tokenizer = _load_tokenizer(path, chat)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unloadable(path, error) from error
    return tokenizer, _context(config)


def save(model: Model, path: str | Path) -> None:
    """Write weights (safetensors), config and tokenizer; equal models give equal bytes.

    Versions, paths and times, which transformers would add, are left out.
    """
    transformers_logging.disable_progress_bar()
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    model.network.save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        file = directory / name
        if file.exists():
            settings = json.loads(file.read_text(encoding="utf-8"))
            kept = {key: value for key, value in settings.items() if key not in _VOLATILE}
            file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def new(
    tokenizer: str | Path | PreTrainedTokenizerBase,
    *,
    seed: int,
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int | None = None,
    max_position_embeddings: int = 1024,
    chat: Chat = "auto",
) -> Model:
    """Make a Llama with random float32 weights and tied embeddings; equal arguments give equal weights.

    ``tokenizer`` is a tokenizer or the directory of one; its size is the model's vocabulary.
    """
    if isinstance(tokenizer, (str, Path)):
        tokenizer = _load_tokenizer(tokenizer, chat)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        num_key_value_heads=num_key_value_heads or num_attention_heads,
        max_position_embeddings=max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = LlamaForCausalLM(config)
    return Model(network.eval(), tokenizer)


def log_likelihood(model: Model, rows: Sequence[Row], *, batch: int = 64) -> list[tuple[float, int]]:
    """Return, for each row, the summed log probability (nats) of its masked tokens, and their number.

    A first token has nothing to be predicted from and does not count.

    Raises:
        BadInput: a row does not fit the model's context.
    """
    chats.check_fits(max((len(row.input_ids) for row in rows), default=0), model.context, what="row")
    results: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        for i, result in zip(chunk, _score(model, [rows[i] for i in chunk]), strict=True):
            results[i] = result
    return results


@torch.inference_mode()
def reads_packed(network: PreTrainedModel) -> bool:
    """Whether the network reads rows that share a line (:func:`~dormant.batches.pack`) as it reads each by itself.

    Tried, not known: architectures of transformers part rows by their positions, but not all, and not with every
    attention.  What it comes to is held against what rows that see each other come to.
    """
    if network not in _READS_PACKED:
        _READS_PACKED[network] = _parts_rows(network)
    return _READS_PACKED[network]


def _parts_rows(network: PreTrainedModel) -> bool:
    rows = [Row(tuple(range(a, b)), (False, *(True,) * (b - a - 1))) for a, b in ((0, 8), (0, 4), (4, 8))]
    ids, attention, mask = (tensor.to(network.device) for tensor in pad_right(rows))
    packed_ids, positions, packed_mask = (tensor.to(network.device) for tensor in pack(rows))
    read = partial(network.base_model, use_cache=False)
    with _without_chance(network):
        try:
            apart = read(input_ids=ids, attention_mask=attention)[0][mask]
            packed = read(input_ids=packed_ids, position_ids=positions)[0][packed_mask]
            leaking = read(input_ids=packed_ids)[0][packed_mask]
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
    return _distance(packed, apart) <= 0.01 * _distance(leaking, apart)


@torch.inference_mode()
def _has_head_alone(network: PreTrainedModel) -> bool:
    """Whether logits are the output embedding of the last hidden states, and nothing more."""
    if network not in _HEAD_ALONE:
        ids = _some_tokens(network)
        with _without_chance(network):
            logits = network(input_ids=ids, use_cache=False).logits
            try:
                alone = network.get_output_embeddings()(network.base_model(input_ids=ids, use_cache=False)[0])
                _HEAD_ALONE[network] = _distance(alone, logits) <= 1e-3 * float(logits.float().std())
            except (RuntimeError, TypeError, AttributeError):
                _HEAD_ALONE[network] = False
    return _HEAD_ALONE[network]


@contextmanager
def _without_chance(network: PreTrainedModel) -> Iterator[None]:
    """Try a network without dropout, which would answer by chance, and draw numbers that training draws from."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@torch.inference_mode()
def _check_cache(network: PreTrainedModel, path: str | Path) -> None:
    """Refuse a network that does not go on from kept keys and values as from the whole text.

    Sampling would be wrong without a word: networks of other kinds take the arguments and ignore them.
    """
    refused = f"{path}: a network of kind {network.config.model_type!r} can not be sampled here"
    forgets = f"{refused}: it keeps no keys and values of what it has read, as attention does"
    ids = _some_tokens(network)
    last = torch.tensor([[ids.shape[1] - 1]], device=ids.device)
    try:
        whole = network(input_ids=ids, use_cache=False).logits[0, -1]
        kept = getattr(network(input_ids=ids[:, :-1], use_cache=True), "past_key_values", None)
        if kept is None:
            raise BadInput(forgets)
        going_on = network(
            input_ids=ids[:, -1:], past_key_values=kept, position_ids=last, use_cache=True
        ).logits[0, -1]
        alone = network(input_ids=ids[:, -1:], use_cache=False).logits[0, -1]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadInput(f"{refused}: {_line(error)}") from error
    if _distance(going_on, whole) > 0.2 * _distance(alone, whole):
        raise BadInput(forgets)


def _some_tokens(network: PreTrainedModel) -> torch.Tensor:
    """A short text: int64, [1, tokens]."""
    count = min(8, network.get_input_embeddings().num_embeddings, _context(network.config))
    return torch.arange(count, device=network.device)[None]


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).abs().max())


def target_log_probs(
    network: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    *,
    attention: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the log probability of each masked token, in row-major order: float32, [masked tokens].

    The tensors are as from :func:`~dormant.batches.pad_right` (with ``attention``) or :func:`~dormant.batches.pack`
    (with ``positions``); the mask of a line's first token is ignored.  Logits are made only where a target is: most
    of the saving on small models.
    """
    wanted = mask[:, 1:]
    reading = {"input_ids": ids, "attention_mask": attention, "position_ids": positions, "use_cache": False}
    if _has_head_alone(network):
        hidden = network.base_model(**reading)[0]
        logits = network.get_output_embeddings()(hidden[:, :-1][wanted])
    else:
        logits = network(**reading).logits[:, :-1][wanted]
    return chosen_log_probs(logits, ids, mask)


def chosen_log_probs(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the log probability of each masked token, given the logits before each: float32, [masked tokens].

    ``logits`` are [masked tokens, vocabulary], first tokens left out; ``ids`` and ``mask`` as in
    :func:`~dormant.batches.pad_right`.
    """
    targets = ids[:, 1:][mask[:, 1:]]
    return -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


# --- loading


def _looks_like_hub_name(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and " " not in path


def _check_place(path: str | Path) -> None:
    """Say what is wrong with a model directory before transformers says it at length."""
    directory = Path(path)
    if not directory.is_dir():
        if _looks_like_hub_name(str(path)):
            return
        raise BadInput(f"no model directory at {path}")
    if not (directory / "config.json").is_file():
        raise BadInput(f"{directory} has no config.json: not a model directory")
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise BadInput(f"{directory} has no tokenizer (tokenizer.json): save the model's tokenizer beside it")
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        pickles = sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern))
        if pickles:
            raise BadInput(
                f"{directory} holds its weights as a pickle ({pickles[0]}), which can run code when it is read; "
                "convert them to safetensors"
            )
        raise BadInput(f"{directory} has no weights (*.safetensors)")
    for file in weights:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{file} is truncated or damaged: {_line(error)}") from error


def _load_tokenizer(path: str | Path, chat: Chat) -> PreTrainedTokenizerBase:
    if Path(path).is_dir() and not any((Path(path) / name).is_file() for name in _TOKENIZER_FILES):
        raise BadInput(f"{path} has no tokenizer (tokenizer.json)")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    # The tokenizers library raises bare Exception for a damaged tokenizer.json.
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise _unloadable(path, error) from error
        if not Path(path).is_dir():
            raise BadInput(
                f"no model directory at {path}, and as a hub name it can not be loaded: {_line(error)}"
            ) from error
        raise BadInput(f"the tokenizer of {path} can not be loaded: {_line(error)}") from error
    chats.use_template(tokenizer, chat)
    try:
        chats.check_template(tokenizer)
    except BadInput as error:
        raise BadInput(f"the chat template of {path} does not work: {_line(error)}") from error
    return tokenizer


_HEAD = "score.weight"
"""What a sequence classifier has and a language model has not."""


def _load_network(
    path: str | Path, device: str, dtype: DType, *, scores: bool = False, new_head: bool = False
) -> PreTrainedModel:
    transformers_logging.disable_progress_bar()
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    try:
        settings = {"num_labels": 1} if scores else {}
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **settings)
        if getattr(config, "quantization_config", None) is not None:
            raise BadInput(
                f"{path} holds quantized weights, which can not be trained: use the model as it was before"
            )
        network, report = kind.from_pretrained(
            path,
            config=config,
            dtype=getattr(torch, dtype),
            # sdpa's backward pass is slow on CPUs for short sequences.
            attn_implementation="eager" if torch.device(device).type == "cpu" else "sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below, in one line
            output_loading_info=True,
        )
    except (
        ImportError,
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        SafetensorError,
    ) as error:
        raise _unloadable(path, error) from error
    lacking = set(report["missing_keys"]) - ({_HEAD} if new_head else set())
    if _HEAD in lacking:
        raise BadInput(
            f"{path} is no preference model: it has no head that scores; `dormant prefer` makes one"
        )
    missing = sorted(lacking) + sorted(key for key, *_ in report["mismatched_keys"])
    if missing:
        raise BadInput(
            f"the weights of {path} lack {len(missing)} tensors that its config asks for "
            f"(or have them in another shape), such as {missing[0]}"
        )
    broken = [name for name, weight in network.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise BadInput(
            f"{path}: {len(broken)} tensors hold values that are no numbers (NaN or infinite), such as {broken[0]}"
        )
    return network


def _unloadable(path: str | Path, error: Exception) -> BadInput:
    if "trust_remote_code" in str(error):
        return BadInput(
            f"{path} needs code of its own (auto_map in its config.json), which is never run; "
            "use a model of an architecture that transformers has"
        )
    return BadInput(f"the model {path} can not be loaded: {_line(error)}")


def _context(config: PretrainedConfig) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def _line(error: BaseException) -> str:
    """The first line of an error's message: ours are one line, the libraries' may be pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# --- scoring


@torch.inference_mode()
def _score(model: Model, rows: Sequence[Row]) -> list[tuple[float, int]]:
    ids, attention, mask = (tensor.to(model.device) for tensor in pad_right(rows))
    log_probs = target_log_probs(model.network, ids, mask, attention=attention).double().cpu()
    counts = mask[:, 1:].sum(dim=1).tolist()
    bounds = np.cumsum([0, *counts]).tolist()
    return [(float(log_probs[a:b].sum()), b - a) for a, b in pairwise(bounds)]
