from pathlib import Path

import msgspec
import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.tree import make_tree
from deferfs.measure.work.victims import VICTIM_EXTENTS, make_victims, name_victims_twice
from deferfs.measure.work.workload import KINDS, NEW_BLOCKS, VICTIMS_PER_ROUND, Churn, Work

WORK = Work(rounds=3, seconds=0, tree_files=400, victims=64, seed=7)
KEPT = msgspec.structs.replace(WORK, second_names=True)
DELETED = WORK.rounds * (len(NEW_BLOCKS) + VICTIMS_PER_ROUND)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return prepare(tmp_path / "prepared")


def prepare(root: Path) -> Path:
    root.mkdir()
    make_tree(root, WORK.tree_files)
    make_victims(root, WORK.victims)
    return root


def files_of(root: Path) -> dict[str, int]:
    """Path and size of every file."""
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def run(root: Path, work: Work) -> dict[str, int]:
    """Operations by kind."""
    churn = Churn(root, work)
    churn.prepare()
    result = churn.measure(StopFlag())
    assert result.rounds == work.rounds
    assert set(result.kinds) == set(KINDS)
    counts = {kind: histogram.count for kind, histogram in result.kinds.items()}
    assert result.operations == sum(counts.values())
    return counts


def test_a_round_deletes_all_that_it_makes_and_its_share_of_the_victims(prepared: Path) -> None:
    counts = run(prepared, WORK)
    assert counts["create"] == WORK.rounds * len(NEW_BLOCKS)
    assert counts["write"] == WORK.rounds * sum(NEW_BLOCKS)
    assert counts["delete"] == DELETED
    assert counts["close"] == counts["create"] + counts["open"]
    left = files_of(prepared)
    victims = [name for name in left if name.startswith("victims/")]
    assert len(victims) == WORK.victims - WORK.rounds * VICTIMS_PER_ROUND
    assert len(left) == WORK.tree_files + len(victims)


def test_second_names_leave_the_operations_the_same_and_keep_every_file(tmp_path: Path, prepared: Path) -> None:
    kept = prepare(tmp_path / "kept")
    name_victims_twice(kept, WORK.victims)
    assert run(kept, KEPT) == run(prepared, WORK)
    left = files_of(kept)
    second_names = [size for name, size in left.items() if name.startswith("second-names/")]
    # every block is followed by a hole, but for the last
    assert sorted(second_names) == sorted((2 * count - 1) * 4096 for count in NEW_BLOCKS * WORK.rounds)
    of_victims = [size for name, size in left.items() if name.startswith("second-names-of-victims/")]
    assert of_victims == [(2 * VICTIM_EXTENTS - 1) * 4096] * WORK.victims


def test_the_same_seed_does_the_same_work(tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        root = prepare(tmp_path / name)
        run(root, KEPT)
        found.append(files_of(root))
    assert found[0] == found[1]


def test_calibration_does_at_least_one_round(prepared: Path) -> None:
    churn = Churn(prepared, msgspec.structs.replace(WORK, rounds=0))
    churn.prepare()
    assert churn.measure(StopFlag()).rounds == 1


def test_the_work_ends_with_the_victims(prepared: Path) -> None:
    churn = Churn(prepared, msgspec.structs.replace(WORK, rounds=100))
    churn.prepare()
    assert churn.measure(StopFlag()).rounds == WORK.victims // VICTIMS_PER_ROUND


def test_a_tree_of_another_size_is_refused(prepared: Path) -> None:
    churn = Churn(prepared, msgspec.structs.replace(WORK, tree_files=600))
    with pytest.raises(DeferfsError, match="has 400 files instead of 600"):
        churn.prepare()
