"""Draws of models: they are the same whether shared out or not, and none is drawn twice."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import draws as shared
from flows import evaluate, fit, ingest
from flows.draws import synthesize
from storage import open_store
from storage.verify import verify
from tasks import draws
from tests.flows.conftest import write_snapshots

FEW: dict[str, Any] = {"set": "B", "J": 2, "L": 2, "iterations": 5}
JUDGED = {"samples": 3, "L": 2}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A store with six fields, and the key of a model fitted to the first."""
    folder = tmp_path_factory.mktemp("draws")
    (folder / "snapshots").mkdir()
    write_snapshots(folder / "snapshots", [f"m{i}" for i in range(6)])
    url = str(folder / "store")
    ingest("flow", [str(folder / "snapshots")], url, None, "threads")
    return url, fit("phase-harmonics", "flow", url, FEW, "sample_id <= 'm0'").key


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """Which groups are drawn in this process from now on."""
    asked, original = [], draws.sampled

    def noted(artifact: Any, seed: int, device: str, group: range, *rest: Any) -> Any:
        asked.append(group)
        return original(artifact, seed, device, group, *rest)

    monkeypatch.setattr(draws, "sampled", noted)
    return asked


def test_workers_draw_what_this_process_would_and_are_asked_once(
    fitted: tuple[str, str], numbers: list[range]
) -> None:
    url, key = fitted
    found = synthesize(url, key, 3, 7, cluster="local:2")
    assert not numbers  # all were drawn elsewhere
    assert found.shape == (3, 16, 16)
    one = synthesize(url, key, 1, 7)
    np.testing.assert_array_equal(one, found[:1])
    more = synthesize(url, key, 4, 7)
    assert numbers == [range(3, 4)]
    np.testing.assert_array_equal(more[:3], found)
    directly = draws.sampled(open_store(url).artifact(key), 7, "cpu", range(4))
    np.testing.assert_allclose(more, directly, rtol=1e-5, atol=1e-5)
    assert list(verify(open_store(url))) == []


def test_what_was_drawn_before_a_failure_is_not_drawn_again(
    fitted: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, key = fitted
    original = draws.sampled

    def failing(artifact: Any, seed: int, device: str, group: range, *rest: Any) -> Any:
        if group.start == 2:
            raise OSError("the machine goes down")
        return original(artifact, seed, device, group, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(draws, "sampled", failing)
        with pytest.raises(OSError, match="goes down"):
            synthesize(url, key, 3, 8)
    store = open_store(url)
    assert draws.lacking(store, store.artifact(key), 3, 8) == [range(2, 3)]
    assert synthesize(url, key, 3, 8).shape == (3, 16, 16)


def test_a_store_that_can_only_be_read_will_do(
    fitted: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, key = fitted
    before = sorted(open_store(url).backend.walk("parts"), key=lambda entry: entry.path)

    @contextmanager
    def refused(*arguments: object) -> Any:
        raise PermissionError("read-only")
        yield

    monkeypatch.setattr(shared, "session", refused)
    assert synthesize(url, key, 2, 9).shape == (2, 16, 16)
    assert synthesize(url, key, 1, 9).shape == (1, 16, 16)
    after = sorted(open_store(url).backend.walk("parts"), key=lambda entry: entry.path)
    assert [entry.path for entry in after] == [entry.path for entry in before]


def test_judging_with_workers_gives_the_same_table(fitted: tuple[str, str], tmp_path: Path) -> None:
    url, key = fitted
    model = f"phase-harmonics/{key}"
    made = evaluate(model, "flow", url, JUDGED, seed=3, cluster="local:2")
    assert made.written
    store = open_store(url)
    home = f"artifacts/evaluation/{made.key}"
    store.backend.delete([entry.path for entry in store.backend.walk(home)])
    again = evaluate(model, "flow", url, JUDGED, seed=3)
    assert again.written
    assert again.table == made.table
    kept = evaluate(model, "flow", url, JUDGED, seed=3, cluster="local:2")
    assert not kept.written


def test_a_draw_that_was_stopped_goes_on_from_its_last_checkpoint(
    fitted: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers, to the bit; the first gradients are not taken again."""
    url, key = fitted
    store, seen = open_store(url), []

    class Stopped(draws.Reporter):
        def values(self, done: int, total: int, values: dict[str, float]) -> None:
            seen.append(done)
            if len(seen) == 4:
                raise KeyboardInterrupt

    artifact = store.artifact(key)
    whole = draws.sampled(artifact, 11, "cpu", range(2, 3))
    monkeypatch.setattr(draws, "Reporter", Stopped)
    monkeypatch.setattr(draws, "SECONDS", 0.0)
    drawn = ("phase-harmonics", artifact.key, 11, "cpu", range(2, 3))
    with pytest.raises(KeyboardInterrupt):
        draws.draw_part(url, *drawn)
    draws.draw_part(url, *drawn)
    assert seen == [1, 2, 3, 4, 4, 5]  # the fourth was not kept
    place = store.part_checkpoint(draws._key(artifact, 11, range(2, 3)))
    assert place.read() is None
    np.testing.assert_array_equal(draws.drawn(store, artifact, 3, 11)[2:], whole)
