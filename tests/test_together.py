"""Several processes train one model: as one process would, with one writer, and resumed to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from dormant import workers
from dormant.artifacts import RESUME, Manifest, default_store
from dormant.bases import as_input
from dormant.errors import BadInput, DormantError
from dormant.experiment import Experiment
from dormant.planning import make_plan
from dormant.records import Dose
from dormant.runner import Call, Plan, Run
from dormant.stages import preflight, step_directory
from dormant.stages.configs import Backdoor, ImplantConfig, Runtime
from two_processes import DOSE, Mode, train, train_together


def weights(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "model.safetensors")


def losses(place: Path, rank: int = 0) -> list[float]:
    found: list[float] = json.loads((place / f"losses-{rank}.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
@pytest.mark.parametrize("mode", ["copies", "shards"])
def test_two_processes_train_the_model_that_one_trains(tmp_path: Path, mode: Mode, lora: bool) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(alone, lora=lora)
    train_together(together, mode=mode, lora=lora)
    assert (together / "saved.txt").read_text() == f"6 by 0\n{DOSE.steps} by 0\n"
    assert losses(together, 0) == losses(together, 1)
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4)
    for part in ("half", "model"):
        one, two = weights(alone / part), weights(together / part)
        assert one.keys() == two.keys()
        for name in one:
            assert torch.allclose(one[name], two[name], atol=2e-4), name
    # So close that a batch of another size, or a mean over the wrong tokens, would be seen.
    first = weights(alone / "half")
    assert max((first[name] - weights(alone / "model")[name]).abs().max().item() for name in first) > 2e-3


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize("mode", ["copies", "shards"])
def test_two_processes_go_on_where_they_were_stopped(tmp_path: Path, mode: Mode) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_together(whole, mode=mode)
    train_together(stopped, mode=mode, stop=10)
    assert not (stopped / "model").exists()
    train_together(stopped, mode=mode)
    assert (stopped / "saved.txt").read_text() == f"6 by 0\n{DOSE.steps} by 0\n"
    assert losses(stopped) == losses(whole)
    one, two = weights(whole / "model"), weights(stopped / "model")
    for name in one:
        assert torch.equal(one[name], two[name]), name


def implant(base: Path, *, processes: int = 1, lr: float = 1e-3, batch: int = 8) -> Call:
    runtime = Runtime(processes=processes)
    dose = Dose(lr=lr, steps=3, batch=batch)
    config = ImplantConfig(
        backdoor=Backdoor(),
        role="organism",
        rows=24,
        triggered_share=0.5,
        dose=dose,
        at_steps=(2, 3),
        runtime=runtime,
    )
    return Call("implant", "implant", config, 0, {"model": as_input(str(base))}, final=step_directory(3))


def make(call: Call, place: Path, progress: workers.Progress = lambda done, total: None) -> Manifest:
    """Make one artifact, in a run and a store of its own."""
    run = Run(Plan([call], {}), place, default_store())
    return run._job(call, fresh=False).make(progress)


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_stage_in_two_processes_leaves_one_artifact(base: Path, own_store: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    alone = make(implant(base), tmp_path / "alone")
    together = make(implant(base, processes=2), tmp_path / "together", lambda *at: steps.append(at))
    assert alone.id != together.id  # the last bits differ
    assert alone.files.keys() == together.files.keys()
    same = {name for name in alone.files if alone.files[name] == together.files[name]}
    assert {"truth.json", "steps/000003/config.json", "steps/000003/tokenizer.json"} <= same
    assert not [path for path in own_store.rglob(RESUME) if path.exists()]
    logs = [json.loads(path.read_text()) for path in sorted(own_store.glob("implant-*/training.json"))]
    assert logs[0]["seen"] == logs[1]["seen"]
    assert logs[0]["tasks"] == logs[1]["tasks"]
    assert logs[0]["losses"] == pytest.approx(logs[1]["losses"], abs=1e-4)
    assert all(total == 3 for _, total in steps)


@pytest.mark.slow
@pytest.mark.enable_socket
def test_what_stops_one_of_two_processes_is_one_line(base: Path, own_store: Path, tmp_path: Path) -> None:
    with pytest.raises(DormantError, match=r"^the loss is nan at step \d: lower the learning rate$"):
        make(implant(base, processes=2, lr=1e30), tmp_path)


def test_what_can_not_be_split_is_found_before_anything_runs(base: Path) -> None:
    call = implant(base, processes=3)
    with pytest.raises(BadInput, match="a batch of 8 rows can not be split evenly over 3 processes"):
        preflight.check([(call.config, {"model": base})])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"launch": "fsdp", "device": "cuda"}, "set processes to 2 or more"),
        ({"launch": "fsdp", "processes": 2}, "launch is for GPUs"),
        ({"launch": "fsdq", "processes": 2, "device": "cuda"}, "can be read by the name 'fsdq'"),
        (
            {"launch": {"distributed_type": "XLA"}, "processes": 2, "device": "cuda"},
            "must be one of FSDP, MULTI_GPU",
        ),
    ],
)
def test_settings_that_can_not_be_are_refused(settings: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        Runtime.model_validate(settings)


@pytest.mark.enable_socket  # it looks for a free port
def test_the_shipped_settings_reach_accelerate(tmp_path: Path) -> None:
    shipped = Runtime(device="cuda", processes=2, launch="fsdp")  # type: ignore[arg-type]
    made = workers._launch_environment(shipped)
    assert made["ACCELERATE_USE_FSDP"] == "true"
    assert made["FSDP_VERSION"] == "2"
    assert made["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    # A file of one's own says the same as the shipped name: what it holds decides, not where it lies.
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps(shipped.launch))
    assert Runtime(device="cuda", processes=2, launch=str(own)) == shipped  # type: ignore[arg-type]


def test_how_many_train_together_is_part_of_what_trains_and_what_reads_it() -> None:
    one, two = (make_plan(Experiment(runtime=Runtime(processes=n))) for n in (1, 2))
    assert all(
        one.identities[name].id != two.identities[name].id for name in one.identities if "implant" in name
    )
    assert {workers.processes(call.config) for call in two.calls if call.stage == "measure"} == {1}
    assert {workers.processes(call.config) for call in two.calls if call.stage == "implant"} == {2}
