"""Errors name the row and the column, in the words of the command line."""

import json
import subprocess

import numpy as np
import pytest

import stackelberg
from stackelberg import follower, interval, kl_budget, shape, threshold

NAN, INF = float("nan"), float("inf")
GRID = np.arange(6.0).reshape(2, 3)


def grid(value):
    rewards = GRID.copy()
    rewards[1, 2] = value
    return rewards


ERRORS = [
    (lambda: shape([]), "no rewards: at least one is needed"),
    (lambda: shape(np.empty((2, 0))), "row 0: no rewards: at least one is needed"),
    (lambda: shape([1.0, NAN]), "rewards[1] is NaN: it must be a finite number"),
    (lambda: shape([1.0, None]), "rewards[1] is None: it must be a finite number"),
    (lambda: shape(grid(NAN)), "row 1: rewards[2] is NaN: it must be a finite number"),
    (lambda: shape(grid(INF).astype(np.float32)), "row 1: rewards[2] is inf: it must be a finite number"),
    (lambda: shape(grid(NAN).astype(object)), "row 1: rewards[2] is NaN: it must be a finite number"),
    (lambda: shape([[1.0], [2.0, None, NAN]]), "row 1: rewards[1] is None: it must be a finite number"),
    (lambda: shape([[1.0], [2.0, NAN, None]]), "row 1: rewards[1] is NaN: it must be a finite number"),
    (lambda: threshold(grid(NAN), threads=2), "row 1: rewards[2] is NaN: it must be a finite number"),
    (lambda: shape([[NAN, 1.0, -INF]], missing="drop"), "row 0: rewards[2] is -inf: it must be a finite number"),
    (lambda: shape([NAN, INF], missing="drop"), "rewards[1] is inf: it must be a finite number"),
    (lambda: shape([[1.0], [NAN]], missing="drop"), "row 1: no rewards: at least one is needed"),
    (lambda: shape([1, NAN, 3, NAN], groups=["a", "b", "a", "a"]), "group 'a': rewards[3] is NaN: it must be a finite number"),
    (lambda: shape([1, None, 3], groups=[7, 8, 7]), "group 8: rewards[1] is None: it must be a finite number"),
    (lambda: shape([1, 2, 3], groups=[7, 8]), "groups has 2 entries but there are 3 rewards"),
    (lambda: shape([1, 2], groups=[[7, 8], [7, 8]]), "groups must have shape (N,), not (2, 2)"),
    (lambda: shape(GRID, groups=[7, 8]), "rewards must have shape (N,) if groups are given, not (2, 3)"),
    (lambda: shape(1.0), "rewards must have shape (M,), (P, M) or be a list of rows, not ()"),
    (lambda: shape([1e308, -1e308]), None),
    (lambda: shape([1.0, 2.0], weights=[1.0]), "weights has 1 entries but there are 2 rewards"),
    (lambda: shape([[1.0, 2.0]], weights=[[1.0]]), "row 0: weights has 1 entries but there are 2 rewards"),
    (lambda: shape([[1.0, 2.0]], weights=[[1.0], [2.0]]), "weights has 2 rows but there are 1 rows of rewards"),
    (lambda: shape(GRID, logits=GRID.T), "logits has 2 entries but there are 3 rewards"),
    (lambda: shape(GRID, logits=GRID[:1]), "logits has shape (1, 3) but the rewards have shape (2, 3)"),
    (lambda: shape([1.0, 2.0], weights=[1.0, -1.0]), "weights[1] is -1: a weight cannot be negative"),
    (lambda: shape([1.0, 2.0], weights=[0.0, 0.0]), "all weights carry zero mass: at least one response must be possible"),
    (lambda: shape([1.0, 2.0], logits=[INF, 0.0]), "logits[0] is inf: it must be a finite number"),
    (lambda: shape([1.0], weights=[1.0], logits=[1.0]), "weights and logits exclude each other: give one"),
    (lambda: shape([1.0], strength=1.0, beta=1.0), "strength and beta exclude each other: give one"),
    (lambda: shape([1.0], bound=1.0, kl_budget=1.0), "bound and kl_budget exclude each other: give one"),
    (lambda: shape([1.0], beta=0.0), "beta is 0: it must be above zero, and finite"),
    (lambda: shape([1.0], strength=-1.0), "strength is -1: it must be zero or more, and finite"),
    (lambda: shape([1.0], bound=INF), "bound is inf: it must be zero or more, and finite"),
    (lambda: shape([1.0], ref_quantile=1.5), "ref-quantile is 1.5: it must be between 0 and 1"),
    (lambda: shape([1.0], level=0.3), "level is 0.3: it must be between 0.5 and 0.99"),
    (lambda: interval([1.0, 2.0], level=1.0), "level is 1: it must be between 0.5 and 0.99"),
    (lambda: kl_budget([1.0, 2.0], -0.5), "kl-budget is -0.5: it must be zero or more nats, and finite"),
    (lambda: kl_budget([1.0, 2.0], 0.5, strength=0.0), "strength is 0: it must be above zero to spend a KL budget"),
    (lambda: shape([1.0], rule="best"), None),
    (lambda: shape([1.0], budget="best"), "unknown budget 'best': known are paper, reference-step, reference-offline"),
    (lambda: shape([1.0], missing="skip"), "unknown missing 'skip': known are error, drop"),
    (lambda: shape([1.0], threads=0), "threads is 0: it must be one or more"),
    (lambda: shape([1.0], threads=-2), "threads is -2: it must be one or more"),
    (lambda: follower([1.0, 2.0], [1.0]), "shaped has 1 entries but there are 2 rewards"),
    (lambda: follower([1.0, 2.0], [1.0, NAN]), "shaped[1] is NaN: it must be a finite number"),
]


@pytest.mark.parametrize(("call", "words"), [case for case in ERRORS if case[1]], ids=lambda case: case if isinstance(case, str) else "")
def test_values(call, words):
    with pytest.raises(ValueError) as found:
        call()
    assert type(found.value) is ValueError and str(found.value) == words


@pytest.mark.parametrize(
    "call",
    [
        lambda: shape("text"),
        lambda: shape(["a", "b"]),
        lambda: shape([1.0, "2.0", None]),
        lambda: shape([[1.0], ["2.0"]]),
        lambda: shape(np.array([1j])),
        lambda: shape([1.0], weights=["1"]),
        lambda: shape([1.0], strength="1"),
        lambda: shape(np.array([[1.0, 2.0], [3.0]], dtype=object)),
        lambda: kl_budget([1.0, 2.0], None),
        lambda: shape([1.0], rule=3),
        lambda: shape([1.0], threads=1.5),
        lambda: shape([1.0], no_such_setting=1),
    ],
)
def test_types(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ({"rewards": []}, {}),
        ({"rewards": [1e308, -1e308]}, {}),
        ({"rewards": [1.0, 2.0], "weights": [1.0]}, {}),
        ({"rewards": [1.0, 2.0], "weights": [1.0, -1.0]}, {}),
        ({"rewards": [1.0, 2.0], "weights": [0.0, 0.0]}, {}),
        ({"rewards": [1.0, 2.0], "weights": [1.0, 1.0], "logits": [1.0, 1.0]}, {}),
        ({"rewards": [1.0]}, {"alpha": -1.0}),
        ({"rewards": [1.0]}, {"beta": -2.5}),
        ({"rewards": [1.0]}, {"exponent_cap": -1.0}),
        ({"rewards": [1.0]}, {"stretch": 0.0}),
        ({"rewards": [1.0]}, {"kl_budget": -1.0}),
        ({"rewards": [1.0]}, {"level": 0.2}),
        ({"rewards": [1.0]}, {"strength": 0.0, "kl_budget": 1.0}),
    ],
    ids=str,
)
def test_the_words_are_those_of_the_command_line(program, line, settings):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    said = subprocess.run([program, "shape", "-", *flags], input=json.dumps(line), capture_output=True, text=True)
    with pytest.raises(ValueError) as found:
        shape(**line, **settings)
    assert said.returncode == 2 and said.stderr.strip().endswith(str(found.value))


def test_private_functions_check_what_they_read():
    from stackelberg import _lib
    from stackelberg._read import read

    class Odd:
        offsets = weights = logits = shaped = None
        rewards = GRID

    settings = _lib.Settings()
    assert _lib.shape(Odd, settings, 1)["shaped"].size == 6
    for name, value in [("weights", GRID.T), ("offsets", np.array([0, 3])), ("rewards", GRID[0]), ("rewards", GRID.astype(int))]:
        odd = type("", (Odd,), {name: value})
        with pytest.raises((ValueError, TypeError)):
            _lib.shape(odd, settings, 1)
    for offsets in [[0, 5], [1, 6], [0, 4, 2, 6], [0, -1, 6], []]:
        odd = type("", (Odd,), {"rewards": GRID.reshape(1, -1), "offsets": np.array(offsets, dtype=np.int64)})
        with pytest.raises(ValueError, match="offsets"):
            _lib.shape(odd, settings, 1)
    assert read([1.0]).offsets is None and stackelberg.__version__ == _lib.__version__
