"""Rewards in every form give the same numbers."""

import pickle

import numpy as np
import pytest
from cases import groups, same

import stackelberg

GRID = np.random.default_rng(1).normal(size=(60, 8))
EXPECTED = stackelberg.shape(GRID)


def equal(result, expected):
    names = ["shaped", "threshold", "residual", "lowest_rewarded", "highest_unrewarded", "above", "bound", "strength", "ess"]
    return (
        all(same(getattr(result, name), getattr(expected, name)) for name in names)
        and same(result.kl.shaped, expected.kl.shaped)
        and same(result.utility.raw, expected.utility.raw)
        and same(result.interval.high, expected.interval.high)
        and result.warnings == expected.warnings
    )


def strided():
    wide = np.full((120, 24), np.nan)
    wide[::2, 1::3] = GRID
    backwards = np.ascontiguousarray(GRID[::-1, ::-1])
    record = np.zeros(GRID.shape, dtype=[("a", "i1"), ("x", "f8")])
    record["x"] = GRID
    return {
        "C order": GRID,
        "Fortran order": np.asfortranarray(GRID),
        "every second row, every third column": wide[::2, 1::3],
        "negative strides": backwards[::-1, ::-1],
        "transposed": np.ascontiguousarray(GRID.T).T,
        "unaligned": record["x"],
        "big-endian": GRID.astype(">f8"),
        "read-only": np.frombuffer(GRID.tobytes()).reshape(GRID.shape),
        "list of floats": GRID.astype(object),
    }


@pytest.mark.parametrize("name", strided())
def test_any_strides(name):
    rewards = strided()[name]
    assert equal(stackelberg.shape(rewards), EXPECTED)
    # `shape` makes a copy; these read the array itself.
    assert same(stackelberg.threshold(rewards).residual, EXPECTED.residual)
    response = stackelberg.follower(rewards, rewards, logits=rewards)
    assert same(response.policy, stackelberg.follower(GRID, GRID, logits=GRID).policy)


@pytest.mark.parametrize("name", ["C order", "Fortran order", "every second row, every third column", "negative strides"])
def test_float32_is_computed_in_float64(name):
    double = strided()[name]
    single = np.full((120, 24), np.nan, dtype=np.float32)[::2, 1::3] if "every" in name else np.empty_like(double, dtype=np.float32)
    single[:] = double
    assert equal(stackelberg.shape(single), stackelberg.shape(single.astype(np.float64)))
    assert same(stackelberg.threshold(single).threshold, stackelberg.threshold(single.astype(np.float64)).threshold)


def test_rows_are_not_copied():
    from stackelberg._read import read

    for rewards in [GRID, GRID.T, GRID.astype(np.float32)[::2], GRID[0]]:
        assert np.shares_memory(read(rewards).rewards, rewards)
    flat = stackelberg.shape(GRID.reshape(-1)[:8])
    assert same(flat.shaped, EXPECTED.shaped[0]) and flat.threshold == EXPECTED.threshold[0]


def test_integers_and_booleans():
    assert stackelberg.threshold(np.array([True, False])).threshold == stackelberg.threshold([1.0, 0.0]).threshold
    assert stackelberg.threshold(np.array([3, -1], dtype=np.int8)).threshold == stackelberg.threshold([3.0, -1.0]).threshold


def test_lists_of_rows():
    rows = [GRID[0], GRID[1].tolist(), tuple(GRID[2][:3]), GRID[3][::2].astype(np.float32)]
    result = stackelberg.shape(rows)
    assert isinstance(result.shaped, list) and [row.size for row in result.shaped] == [8, 8, 3, 4]
    for number, row in enumerate(rows):
        alone = stackelberg.shape(np.asarray(row, dtype=np.float64))
        assert same(result.shaped[number], alone.shaped) and result.threshold[number] == alone.threshold
    # Rows of equal length remain a list.
    assert same(stackelberg.shape(GRID.tolist()).shaped, list(EXPECTED.shaped))


@pytest.mark.parametrize("ids", [np.int64, str, lambda number: (number, "x")], ids=["int", "str", "tuple"])
def test_groups_by_id_never_by_position(ids):
    rows = groups(50, 3)
    order = np.random.default_rng(4).permutation(sum(row.size for row in rows))
    flat = np.concatenate(rows)[order]
    owner = np.repeat(np.arange(50), [row.size for row in rows])[order]
    names = np.empty(flat.size, dtype=object)
    names[:] = [ids(number) for number in owner]
    if ids is not str and not isinstance(names[0], tuple):
        names = names.astype(np.int64)
    result = stackelberg.shape(flat, groups=names)
    assert result.shaped.shape == flat.shape and len(result.groups) == 50
    seen = list(dict.fromkeys(owner.tolist()))
    assert list(result.groups) == [ids(number) for number in seen]
    for at, number in enumerate(seen):
        alone = stackelberg.shape(flat[owner == number])
        assert same(result.shaped[owner == number], alone.shaped)
        assert same(result.threshold[at], alone.threshold) and same(result.kl.shaped[at], alone.kl.shaped)


def test_group_ids_as_text_array():
    result = stackelberg.shape([0.1, 1.0, 2.3, 2.0], groups=["b", "a", "b", "a"], rule="hard")
    assert result.groups.tolist() == ["b", "a"]
    assert result.threshold.tolist() == [
        float(stackelberg.threshold([0.1, 2.3]).threshold),
        float(stackelberg.threshold([1.0, 2.0]).threshold),
    ]


def with_gaps():
    gaps = GRID.copy()
    gaps[np.random.default_rng(6).random(gaps.shape) < 0.3] = np.nan
    gaps[:, 2] = GRID[:, 2]
    return gaps


def test_missing_rewards_are_dropped():
    gaps = with_gaps()
    weights = np.random.default_rng(7).random(gaps.shape)
    holes = np.isnan(gaps)
    rows = [row[~hole] for row, hole in zip(gaps, holes, strict=True)]
    kept = [row[~hole] for row, hole in zip(weights, holes, strict=True)]
    expected = stackelberg.shape(rows, weights=kept)
    none = [[None if np.isnan(x) else x for x in row] for row in gaps.tolist()]
    masked = np.ma.MaskedArray(np.nan_to_num(gaps, nan=9.0), mask=holes)
    for given in [gaps, np.asfortranarray(gaps), none, masked]:
        result = stackelberg.shape(given, weights=weights if given is not none else list(weights), missing="drop")
        for row, hole, shaped in zip(result.shaped, holes, expected.shaped, strict=True):
            assert same(row[~hole], shaped) and np.isnan(row[hole]).all()
        assert same(result.threshold, expected.threshold) and same(result.ess, expected.ess)
    flat = stackelberg.shape(gaps.reshape(-1), weights=weights.reshape(-1), groups=np.repeat(np.arange(60), 8), missing="drop")
    assert same(flat.threshold, expected.threshold) and same(flat.shaped.reshape(60, 8), result.shaped)


def test_nothing_is_missing():
    assert equal(stackelberg.shape(GRID, missing="drop"), EXPECTED)


def test_chosen_is_a_column_of_what_was_passed():
    rewards = np.array([[np.nan, 1.0, 5.0], [2.0, np.nan, 1.0]])
    result = stackelberg.shape(rewards, logits=np.zeros((2, 3)), missing="drop")
    assert result.chosen.tolist() == [2, 0]
    assert np.isnan(result.fused[0, 0]) and result.fused[0, 2] == result.shaped[0, 2]
    assert stackelberg.shape([1.0, 5.0, 2.0, 0.0], logits=[0.0] * 4, groups=[0, 1, 0, 1]).chosen.tolist() == [2, 1]
    assert stackelberg.shape([[1.0, 5.0], [2.0, 0.0]], logits=[[0.0, 0.0], [-np.inf, 0.0]]).chosen.tolist() == [1, 1]


def test_weights_of_all_prompts():
    weights = np.arange(1.0, 9.0)
    one = stackelberg.threshold(GRID, weights=weights)
    assert same(one.threshold, stackelberg.threshold(GRID, weights=np.tile(weights, (60, 1))).threshold)
    assert not same(one.threshold, EXPECTED.threshold)


def test_no_prompts():
    assert stackelberg.shape(np.empty((0, 4))).shaped.shape == (0, 4)
    assert stackelberg.shape(np.empty((0, 4))).warnings == []
    assert stackelberg.shape(np.empty(0), groups=[]).threshold.shape == (0,)


def test_later_changes_of_rewards_do_not_matter():
    rewards = GRID.copy()
    result = stackelberg.shape(rewards)
    rewards[:] = 0.0
    result.shaped[:] = 0.0
    assert same(result.kl.shaped, EXPECTED.kl.shaped) and same(result.utility.shaped, EXPECTED.utility.shaped)


def test_results_are_frozen_and_can_be_pickled():
    result = stackelberg.shape(GRID)
    with pytest.raises(AttributeError):
        result.threshold = 0.0
    assert equal(pickle.loads(pickle.dumps(result)), EXPECTED)


def test_several_threads_give_the_same():
    for threads in [2, 3, 4, 100]:
        assert equal(stackelberg.shape(GRID, threads=threads), EXPECTED)
