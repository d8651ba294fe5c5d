"""Results equal those of the command line to the last bit."""

import json
import subprocess

import numpy as np
import pytest
from cases import bits, groups, same

import stackelberg

RULES = ["raw", "hard", "srs", "mean-soft", "minmax", "meanstd", "srs-std", "cap", "log-sigmoid", "par"]
SETTINGS = [
    *({"rule": rule} for rule in RULES),
    *({"rule": rule, "kl_budget": 0.3} for rule in RULES),
    {"rule": "hard", "beta": 0.3, "bound": 7.5, "level": 0.6},
    {"rule": "srs", "strength": 0.0},
    {"rule": "srs", "strength": 3.0, "bound": 0.7, "alpha": 2.5, "budget": "reference-step"},
    {"rule": "hard", "strength": 3.0, "budget": "reference-offline", "exponent_cap": 1.5},
    {"rule": "cap", "cap": 0.25},
    {"rule": "minmax", "bound": 100.0, "stretch": 1.7},
    {"rule": "par", "ref_quantile": 0.8},
    {"rule": "srs-std", "kl_budget": 50.0, "level": 0.99},
]


def command_line(program, lines, settings):
    names = {"rule": "shaping"}
    flags = [f"--{names.get(name, name).replace('_', '-')}={value}" for name, value in settings.items()]
    given = "".join(json.dumps(line) + "\n" for line in lines)
    said = subprocess.run([program, "shape", "-", *flags], input=given, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return [json.loads(line) for line in said.stdout.splitlines()]


def number(value):
    return np.nan if value is None else value


def check(result, expected):
    """All that a result has, against the command line's lines."""
    assert len(expected) == len(result.threshold)
    for name in ["threshold", "residual", "lowest_rewarded", "highest_unrewarded", "bound", "strength", "ess"]:
        assert bits(getattr(result, name)) == bits([number(line[name]) for line in expected]), name
    for name in ["base", "raw", "shaped"]:
        assert bits(getattr(result.utility, name)) == bits([line["utility"][name] for line in expected]), name
    for name in ["raw", "shaped"]:
        assert bits(getattr(result.kl, name)) == bits([line["kl"][name] for line in expected]), name
    assert result.above.tolist() == [line["above"] or 0 for line in expected]
    assert result.warnings == [tuple(line["warnings"]) for line in expected]
    assert same(result.shaped, [line["shaped"] for line in expected])
    intervals = [line["interval"] for line in expected]
    assert bits(result.interval.low) == bits([np.nan if i is None else i["low"] for i in intervals])
    highs = [np.nan if i is None else np.inf if i["high"] is None else i["high"] for i in intervals]
    assert bits(result.interval.high) == bits(highs)
    assert {i["level"] for i in intervals if i} <= {result.interval.level}


@pytest.mark.parametrize("prior", ["draws", "weights", "logits"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_the_command_line(program, settings, prior):
    # 28 settings of 3 * 120 groups each.
    seed = [SETTINGS.index(settings), len(prior)]
    rewards = groups(120, seed)
    rng = np.random.default_rng(seed)
    lines = [{"rewards": row.tolist()} for row in rewards]
    given = {}
    if prior == "weights":
        given["weights"] = [np.where(rng.random(row.size) < 0.2, 0.0, rng.random(row.size)) for row in rewards]
        for row in given["weights"]:
            row[rng.integers(row.size)] = 1.0
    if prior == "logits":
        given["logits"] = [rng.normal(size=row.size) * 5 for row in rewards]
    for name, rows in given.items():
        for line, row in zip(lines, rows, strict=True):
            line[name] = row.tolist()
    expected = command_line(program, lines, settings)
    result = stackelberg.shape(rewards, **settings, **given)
    check(result, expected)
    if prior == "logits":
        assert same(result.fused, [line["fused"] for line in expected])
        assert result.chosen.tolist() == [line["chosen"] for line in expected]
    else:
        assert result.fused is None and result.chosen is None and "fused" not in expected[0]

    # The functions of one quantity give the same.
    rule, kl_budget = settings["rule"], settings.get("kl_budget")
    response = stackelberg.follower(rewards, result.shaped, strength=float(result.strength[0]), **given)
    if len(set(result.strength.tolist())) == 1:
        for name in ["kl", "utility"]:
            assert same(getattr(response, name), getattr(result, name).shaped)
        assert same(response.ess, result.ess)
        assert np.allclose([row.sum() for row in response.policy], 1.0)
    if kl_budget is not None:
        solved = stackelberg.kl_budget(rewards, kl_budget, rule=rule, **given)
        # A result has the bound in effect, which minmax limits to the span of the rewards.
        assert same(solved.bound, result.bound) or (rule == "minmax" and (solved.bound >= result.bound).all())
        assert same(solved.strength, result.strength)
        assert same(solved.kl, result.kl.shaped)
        assert (solved.kl <= kl_budget).all()
        words = [any("KL budget" in warning for warning in warnings) for warnings in result.warnings]
        assert solved.saturated.tolist() == words
    elif rule == "hard" and "budget" not in settings:
        same_settings = {name: settings[name] for name in ("beta", "bound") if name in settings}
        found = stackelberg.threshold(rewards, **same_settings, **given)
        for name in ["threshold", "residual", "lowest_rewarded", "highest_unrewarded", "above", "mass", "exponent"]:
            assert same(getattr(found, name), getattr(result, name)), name
        if prior == "draws":
            interval = stackelberg.interval(rewards, **same_settings, level=settings.get("level"))
            assert same(interval.low, result.interval.low) and same(interval.high, result.interval.high)
            assert interval.level == result.interval.level


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_grids_equal_the_command_line(program, dtype):
    rewards = np.random.default_rng(5).normal(size=(500, 10)).astype(dtype)
    expected = command_line(program, [{"rewards": row.tolist()} for row in rewards], {"rule": "srs"})
    check(stackelberg.shape(rewards), expected)


def test_one_prompt_has_the_shape_of_its_rewards():
    result = stackelberg.shape([0.1, 2.3, -0.4, 0.9], rule="hard")
    assert result.shaped.shape == (4,)
    numbers = [result.threshold, result.above, result.bound, result.kl.raw, result.utility.base, result.ess, result.interval.low]
    assert all(number.shape == () for number in numbers)
    # By hand: one of four rewarded, e^2 times as likely: (2.3 e^2 + 0.6) / (e^2 + 3).
    assert result.threshold == pytest.approx((2.3 * np.exp(2) + 0.6) / (np.exp(2) + 3), rel=1e-15)
    assert len(result.warnings) == 1
