"""Artifacts: identity, atomic finishing, reuse, links, dropped parts, damage."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from dormant import artifacts, stages
from dormant.artifacts import MANIFEST, RESUME, Identity, Manifest, Store
from dormant.errors import BadInput, Corrupt

IDENTITY = Identity("implant", "source", {"lr": 0.1}, 0, {"model": "abc"})


def fill(out: Path) -> None:
    (out / "steps" / "000001").mkdir(parents=True, exist_ok=True)
    (out / "steps" / "000001" / "weights").write_bytes(b"one")
    (out / "final").write_bytes(b"two")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize(
    "other",
    [
        replace(IDENTITY, stage="defend"),
        replace(IDENTITY, source="changed"),
        replace(IDENTITY, config={"lr": 0.2}),
        replace(IDENTITY, seed=1),
        replace(IDENTITY, inputs={"model": "abd"}),
    ],
)
def test_everything_that_decides_the_content_decides_the_id(other: Identity) -> None:
    assert other.id != IDENTITY.id
    assert replace(IDENTITY).id == IDENTITY.id


def test_a_finished_artifact_lists_the_hash_of_every_file(store: Store) -> None:
    manifest = store.build(IDENTITY, fill, keep=lambda _: True)
    assert manifest.files == {
        "final": "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
        "steps/000001/weights": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
    }
    assert artifacts.check(store.path(IDENTITY)) == []


def test_an_equal_identity_is_not_made_again(store: Store) -> None:
    made = []
    for _ in range(2):
        store.build(IDENTITY, lambda out: (made.append(1), fill(out))[1], keep=lambda _: True)
    assert made == [1]


def test_what_keep_refuses_is_made_again(store: Store) -> None:
    store.build(IDENTITY, fill, keep=lambda _: True)
    store.build(IDENTITY, lambda out: (out / "final").write_text("new"), keep=lambda _: False)
    assert (store.path(IDENTITY) / "final").read_text() == "new"


def test_a_killed_stage_leaves_nothing_that_looks_finished_and_finds_its_own_work(store: Store) -> None:
    def killed(out: Path) -> None:
        (out / RESUME).mkdir()
        (out / RESUME / "checkpoint").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build(IDENTITY, killed, keep=lambda _: True)
    assert Manifest.read(store.path(IDENTITY)) is None

    def resumed(out: Path) -> None:
        assert (out / RESUME / "checkpoint").read_text() == "half"
        fill(out)

    store.build(IDENTITY, resumed, keep=lambda _: True)
    assert not (store.path(IDENTITY) / RESUME).exists()
    assert RESUME not in str(sorted(store.path(IDENTITY).rglob("*")))


def test_damage_is_named(store: Store) -> None:
    store.build(IDENTITY, fill, keep=lambda _: True)
    directory = store.path(IDENTITY)
    (directory / "final").write_bytes(b"tw0")
    (directory / "stray").write_bytes(b"")
    (directory / "steps" / "000001" / "weights").unlink()
    assert artifacts.check(directory) == [
        f"{directory.name}/stray: not in the manifest",
        f"{directory.name}/final: its bytes differ from the manifest's hash",
        f"{directory.name}/steps/000001/weights: missing",
    ]


def test_a_damaged_manifest_is_not_read_as_unfinished(store: Store) -> None:
    store.build(IDENTITY, fill, keep=lambda _: True)
    (store.path(IDENTITY) / MANIFEST).write_text("{")
    with pytest.raises(Corrupt):
        Manifest.read(store.path(IDENTITY))


def test_dropped_parts_are_noted_and_their_absence_is_no_damage(store: Store) -> None:
    store.build(IDENTITY, fill, keep=lambda _: True)
    store.drop(IDENTITY, ["steps/000001"])
    manifest = Manifest.read(store.path(IDENTITY))
    assert manifest is not None
    assert not manifest.has("steps/000001")
    assert not manifest.has("steps/000001/weights")
    assert manifest.has("final")
    assert artifacts.check(store.path(IDENTITY)) == []


def test_a_link_shares_bytes_but_not_the_manifest(store: Store, tmp_path: Path) -> None:
    store.build(IDENTITY, fill, keep=lambda _: True)
    run = tmp_path / "run"
    artifacts.link(store.path(IDENTITY), run)
    assert (run / "final").stat().st_ino == (store.path(IDENTITY) / "final").stat().st_ino
    artifacts.drop(run, ["steps/000001"])
    assert artifacts.check(store.path(IDENTITY)) == []
    assert (store.path(IDENTITY) / "steps/000001/weights").is_file()


def test_an_external_input_is_known_by_its_bytes_not_its_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"same")
    assert artifacts.external_id(tmp_path / "a") == artifacts.external_id(tmp_path / "b")
    (tmp_path / "b" / "weights").write_bytes(b"diff")
    assert artifacts.external_id(tmp_path / "a") != artifacts.external_id(tmp_path / "b")


def test_the_source_hash_follows_imports_of_this_package() -> None:
    alone = artifacts.source_hash("dormant.errors")
    assert alone != artifacts.source_hash("dormant.registry")
    assert artifacts.source_hash("dormant.registry") == artifacts.source_hash(
        "dormant.registry", "dormant.errors"
    )


@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_stage_is_made_again_for_what_decides_its_numbers_and_nothing_else(stage: str) -> None:
    module = stages.STAGES[stage]
    alone = artifacts.source_hash(module)

    def within(other: str) -> bool:
        return artifacts.source_hash(module, other) == alone

    assert within("dormant.models")
    assert within("dormant.pocket.world")
    assert not any(
        within(f"dormant.{name}") for name in ("cli", "planning", "collect", "console", "lab", "workers")
    )


def test_a_plug_in_from_outside_is_hashed_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = tmp_path / "outside_plugin.py"
    plugin.write_text("x = 1\n")
    first = artifacts.source_hash("dormant.errors", "outside_plugin")
    artifacts.source_hash.cache_clear()
    plugin.write_text("x = 2\n")
    assert artifacts.source_hash("dormant.errors", "outside_plugin") != first


def test_a_plug_in_of_the_running_script_is_known_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ModuleType("a_script")  # as Python makes __main__: no spec
    script.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(sys.modules, "a_script", script)
    hashes = set()
    for text in ("x = 1\n", "x = 2\n"):
        (tmp_path / "script.py").write_text(text)
        artifacts.source_hash.cache_clear()
        hashes.add(artifacts.source_hash("dormant.errors", "a_script"))
    assert len(hashes) == 2


def test_a_plug_in_without_a_source_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typed_in", ModuleType("typed_in"))
    with pytest.raises(BadInput, match="typed_in has no source file"):
        artifacts.source_hash("dormant.errors", "typed_in")


def test_jsonl_is_canonical_and_round_trips(tmp_path: Path) -> None:
    rows = [{"b": 1, "a": "é"}, [1.5, None]]
    artifacts.write_jsonl(tmp_path / "rows", rows)
    assert (tmp_path / "rows").read_text(encoding="utf-8").splitlines()[0] == '{"a":"é","b":1}'
    assert list(artifacts.read_jsonl(tmp_path / "rows")) == json.loads(json.dumps(rows))
