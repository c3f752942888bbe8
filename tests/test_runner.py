"""Plans and runs, with stages that take no time: order, reuse, what is made again, and kills."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from dormant import artifacts, stages
from dormant.artifacts import Manifest, Store
from dormant.errors import BadInput
from dormant.records import Dose
from dormant.runner import Call, External, Output, Plan, Quiet, Run, identify
from dormant.stages.configs import DefendConfig, Plugin, Runtime

DOSE = Dose(lr=1, steps=2)


def train(config: DefendConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: object) -> None:
    """Write two checkpoints that tell what they were made from."""
    model = inputs.get("model")
    before = (model / "weights").read_text() if model else ""
    for step in (1, 2):
        (out / stages.step_directory(step)).mkdir(parents=True, exist_ok=True)
        (out / stages.step_directory(step) / "weights").write_text(f"{before}{config.dose.lr}@{step};")
    LOG.append(config.dose.lr)


LOG: list[float] = []


@pytest.fixture(autouse=True)
def instant_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    LOG.clear()
    monkeypatch.setattr(stages, "load", lambda name: train)


def config(lr: float) -> DefendConfig:
    return DefendConfig(defense=Plugin(name="no-op"), dose=Dose(lr=lr, steps=2), at_steps=(1, 2))


def chain(first: float = 1, second: float = 2, keep: str = "final", spec: dict | None = None) -> Plan:
    """Two trainings in a row; a third continues from the first one's intermediate checkpoint."""
    final = stages.step_directory(2)
    return Plan(
        [
            Call("a", "defend", config(first), 0, {}, final=final),
            Call("b", "defend", config(second), 0, {"model": Output("a", final)}, final=final),
            Call("c", "defend", config(3), 0, {"model": Output("a", stages.step_directory(1))}, final=final),
        ],
        spec or {"name": "chain"},
        keep,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def weights(run: Run, call: str, step: int = 2) -> str:
    return (run.artifact(call) / stages.step_directory(step) / "weights").read_text()


def test_each_call_gets_the_part_that_it_asked_for(tmp_path: Path, store: Store) -> None:
    run = Run(chain(), tmp_path / "run", store)
    assert run.execute(Quiet()) == ["a", "b", "c"]
    assert weights(run, "b") == "1.0@2;2.0@2;"
    assert weights(run, "c") == "1.0@1;3.0@2;"


def test_a_second_run_makes_nothing_and_links_from_the_store(tmp_path: Path, store: Store) -> None:
    Run(chain(), tmp_path / "one", store).execute(Quiet())
    again = Run(chain(), tmp_path / "two", store)
    assert again.execute(Quiet()) == []
    assert weights(again, "b") == "1.0@2;2.0@2;"
    assert LOG == [1, 2, 3]


def test_a_change_makes_again_what_depends_on_it_and_no_more(tmp_path: Path, store: Store) -> None:
    Run(chain(), tmp_path / "one", store).execute(Quiet())
    assert Run(chain(second=5), tmp_path / "two", store).execute(Quiet()) == ["b"]


def test_what_starts_several_processes_on_a_stage_decides_its_numbers_too() -> None:
    def source(processes: int) -> str:
        several = config(1).model_copy(update={"runtime": Runtime(processes=processes)})
        return identify(Call("a", "defend", several, 0, {}), {}).source

    named = (stages.STAGES["defend"], "dormant.defenses.sft")
    assert source(1) == artifacts.source_hash(*named)
    assert source(2) == artifacts.source_hash(*named, "dormant.workers") != source(1)


def test_intermediate_checkpoints_go_unless_all_are_kept(tmp_path: Path, store: Store) -> None:
    run = Run(chain(), tmp_path / "run", store)
    run.execute(Quiet())
    assert not (run.artifact("a") / stages.step_directory(1)).exists()
    assert artifacts.check(run.artifact("a")) == []
    kept = Run(chain(keep="all"), tmp_path / "kept", Store(tmp_path / "other"))
    kept.execute(Quiet())
    assert weights(kept, "a", 1) == "1.0@1;"


def test_a_dropped_checkpoint_is_made_again_only_when_something_missing_needs_it(
    tmp_path: Path, store: Store
) -> None:
    Run(chain(), tmp_path / "one", store).execute(Quiet())
    run = Run(chain(), tmp_path / "one", store)
    manifest = run.artifact("c") / "manifest.json"
    manifest.unlink()
    (store.path(run.plan.identities["c"]) / "manifest.json").unlink()
    assert [call.name for call in run.todo()] == ["a", "c"]
    run.execute(Quiet())
    assert weights(run, "c") == "1.0@1;3.0@2;"


def test_a_damaged_artifact_is_made_again(tmp_path: Path, store: Store) -> None:
    run = Run(chain(), tmp_path / "run", store)
    run.execute(Quiet())
    # Hard-linked, so the store's copy is damaged as well.
    (run.artifact("b") / stages.step_directory(2) / "weights").write_text("flipped")
    assert run.execute(Quiet()) == ["b"]
    assert weights(run, "b") == "1.0@2;2.0@2;"


def test_fresh_makes_everything_again(tmp_path: Path, store: Store) -> None:
    Run(chain(), tmp_path / "run", store).execute(Quiet())
    assert Run(chain(), tmp_path / "run", store).execute(Quiet(), fresh=True) == ["a", "b", "c"]


def test_a_stopped_run_goes_on_where_it_was(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object) -> None:
        if len(LOG) == 1:
            raise KeyboardInterrupt
        train(*args)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "load", lambda name: stopped)
        with pytest.raises(KeyboardInterrupt):
            Run(chain(), tmp_path / "run", store).execute(Quiet())
    run = Run(chain(), tmp_path / "run", store)
    assert run.execute(Quiet()) == ["b", "c"]
    assert weights(run, "c") == "1.0@1;3.0@2;"


def test_another_run_and_a_foreign_directory_are_refused_and_left_alone(tmp_path: Path, store: Store) -> None:
    Run(chain(), tmp_path / "run", store).execute(Quiet())
    before = (tmp_path / "run" / "plan.json").read_bytes()
    with pytest.raises(BadInput, match=r"is another run \(it differs in name\); choose another --out"):
        Run(chain(spec={"name": "other"}), tmp_path / "run", store).execute(Quiet())
    assert (tmp_path / "run" / "plan.json").read_bytes() == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(BadInput, match="is not empty and is no run"):
        Run(chain(), tmp_path / "thesis", store).execute(Quiet())
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_artifacts_of_an_older_plan_leave_the_run_but_not_the_store(tmp_path: Path, store: Store) -> None:
    old = Run(chain(), tmp_path / "run", store)
    old.execute(Quiet())
    Run(chain(first=9), tmp_path / "run", store).execute(Quiet())
    assert not old.artifact("a").exists()
    assert store.path(old.plan.identities["a"]).exists()


def test_other_library_versions_are_reused_with_one_warning(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(chain(), tmp_path / "run", store)
    run.execute(Quiet())
    monkeypatch.setattr(artifacts, "versions", lambda: {"torch": "99"})
    with pytest.warns(UserWarning, match="other library versions") as warned:
        assert run.execute(Quiet()) == []
    assert len(warned) == 1


def test_the_plan_on_disk_names_no_path(tmp_path: Path, store: Store) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "weights").write_text("base")
    call = Call(
        "a", "defend", config(1), 0, {"model": External(tmp_path / "base")}, final=stages.step_directory(2)
    )
    run = Run(Plan([call], {"name": "x"}), tmp_path / "run", store)
    run.execute(Quiet())
    assert weights(run, "a") == "base1.0@2;"
    text = (tmp_path / "run" / "plan.json").read_text()
    assert str(tmp_path) not in text
    manifest = Manifest.read(run.artifact("a"))
    assert manifest is not None
    assert str(tmp_path) not in json.dumps(manifest.model_dump())
