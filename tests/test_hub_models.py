"""A model by its hub name: what is taken, which commit it is, and what is said where it can not be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from dormant import bases
from dormant.artifacts import default_store
from dormant.bases import find_model, label, pinned
from dormant.errors import BadInput
from dormant.experiment import Experiment
from dormant.planning import make_plan
from dormant.runner import External, Quiet, Run
from tiny_runs import command

NEW, OLD = "1f" * 20, "0e" * 20
"""Commits: ``main``, and the tag ``v1``."""


@pytest.fixture
def hub(base: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on disk, as its client lays it out, with one model at two commits; no network."""
    cache = own_store.parent / "hub"
    root = cache / "models--acme--tiny"
    for ref, commit in (("main", NEW), ("v1", OLD)):
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / ref).write_text(commit)
        put(root, commit, *sorted(base.iterdir()))
    for name in ("pytorch_model.bin", "modeling_tiny.py", "README.md", "consolidated.safetensors"):
        extra = own_store.parent / name
        extra.write_text("raise SystemExit('never read')")
        put(root, NEW, extra)
    put(root, OLD, weights_of(base, own_store.parent))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    bases._download.cache_clear()
    return root


def put(root: Path, commit: str, *files: Path) -> None:
    """Files as the client keeps them: bytes under ``blobs``, links in the commit's snapshot."""
    snapshot, blobs = root / "snapshots" / commit, root / "blobs"
    for directory in (snapshot, blobs):
        directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        blob = blobs / f"{commit[:2]}-{file.name}"
        shutil.copyfile(file, blob)
        (snapshot / file.name).unlink(missing_ok=True)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)


def weights_of(base: Path, place: Path) -> Path:
    """A config that differs from the base's in a field without effect: another commit's bytes."""
    config = json.loads((base / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "torch_dtype": "float32"}))
    return place / "config.json"


def refused(name: str) -> str:
    with pytest.raises(BadInput) as caught:
        find_model(name)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_only_weights_config_and_tokenizer_are_taken(hub: Path, base: Path) -> None:
    found = find_model("hub:acme/tiny")
    assert {file.name for file in found.iterdir()} == {file.name for file in base.iterdir()}
    # What other tools put beside them decides nothing: the id is that of a directory with the same bytes.
    assert External(found).id == External(base).id


def test_a_revision_is_resolved_to_its_commit(hub: Path, base: Path) -> None:
    assert pinned("hub:acme/tiny") == pinned("hub:acme/tiny@main") == f"hub:acme/tiny@{NEW}"
    assert pinned("hub:acme/tiny@v1") == f"hub:acme/tiny@{OLD}"
    assert find_model(f"hub:acme/tiny@{OLD}") == find_model("hub:acme/tiny@v1")
    assert External(find_model("hub:acme/tiny@v1")).id != External(base).id
    assert label("hub:acme/tiny@v1") == f"acme/tiny@{OLD[:12]}"
    assert label(str(base)) == "random"
    assert label("pocket-1m") == "pocket-1m"


def test_a_plan_records_the_commit_and_says_so(hub: Path, base: Path) -> None:
    plan = make_plan(Experiment(base="hub:acme/tiny"))
    measured = next(call for call in plan.describe() if call["name"] == "measure/base")
    assert measured["inputs"]["model"] == {"id": External(base).id, "origin": f"hub:acme/tiny@{NEW}"}
    assert plan.spec["base"] == f"hub:acme/tiny@{NEW}"
    assert measured["key"]["base"] == f"acme/tiny@{NEW[:12]}"
    assert any(f"hub:acme/tiny is hub:acme/tiny@{NEW} now" in note for note in plan.notes)
    again = make_plan(Experiment(base=f"hub:acme/tiny@{NEW}"))
    assert again.spec == plan.spec
    assert not any("now" in note for note in again.notes)
    # The hub's model and a directory with its bytes are one model: nothing is made twice.
    local = make_plan(Experiment(base=str(base)))
    assert {c: i.id for c, i in local.identities.items()} == {c: i.id for c, i in plan.identities.items()}


def test_a_commit_that_moved_is_another_run(hub: Path, tmp_path: Path) -> None:
    def run() -> Run:
        bases._download.cache_clear()
        return Run(make_plan(Experiment(base="hub:acme/tiny")), tmp_path, default_store())

    first = run()
    first._write_plan()
    first._refuse_foreign()
    (hub / "refs" / "main").write_text(OLD)
    with pytest.raises(BadInput, match=r"is another run \(it differs in base\)"):
        run().execute(Quiet())


def test_what_is_not_there_is_one_line_that_says_what_to_do(hub: Path) -> None:
    for name in ("hub:acme/other", "hub:acme/tiny@v9"):
        assert refused(name).startswith(f"{name} is not in the hub's cache, or not all of it")
        assert "run once with network, or give a directory" in refused(name)
    assert "must be hub:OWNER/NAME" in refused("hub:acme/tiny/deep")
    assert "if it is a model on the hub, write hub:acme/tiny" in refused("acme/tiny")


def test_weights_as_a_pickle_are_not_taken(hub: Path) -> None:
    (hub / "snapshots" / NEW / "model.safetensors").unlink()
    assert "hub:acme/tiny has no weights as safetensors; pickles are never read" in refused("hub:acme/tiny")


def test_the_command_line_says_it_in_one_line(
    hub: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = command(capsys, "measure", "hub:acme/other", "--out", tmp_path / "run")
    assert said.code == 2
    assert said.err.startswith("dormant: hub:acme/other is not in the hub's cache")
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
