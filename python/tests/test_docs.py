"""The examples of the documentation run, and every public item is documented."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil

import pytest
from conftest import ROOT

import stackelberg
from stackelberg import _policy

HEAVY = {"_branches", "_sequences", "transformers"}
"""What needs torch: `adapters/` tests it."""
NAMES = {found.name for found in pkgutil.iter_modules(stackelberg.__path__)} - HEAVY
MODULES = ["stackelberg", *(f"stackelberg.{name}" for name in sorted(NAMES))]


# Examples are short: their samples are cut.
@pytest.mark.filterwarnings("ignore:.* without a finished sample")
def test_examples_of_the_modules():
    results = [doctest.testmod(importlib.import_module(name)) for name in MODULES]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 20


@pytest.mark.filterwarnings("ignore:.* without a finished sample")
def test_examples_of_the_guide():
    result = doctest.testfile(str(ROOT / "docs" / "src" / "python.md"), module_relative=False)
    assert result.failed == 0 and result.attempted >= 10


@pytest.mark.parametrize("name", ["shape", "threshold", "follower", "kl_budget", "interval", "train_value", "train_reward", "evaluate"])
def test_functions_are_documented(name):
    function = getattr(stackelberg, name)
    words = inspect.getdoc(function)
    sections = ["Parameters\n---", "Returns\n---", "Raises\n---", "Examples\n---"]
    assert all(section in words for section in sections)
    listed = words.split("Parameters")[1].split("Returns\n")[0]
    named = {part.strip() for line in listed.splitlines() if not line.startswith(" ") for part in line.split(",")}
    assert set(inspect.signature(function).parameters) <= named


@pytest.mark.parametrize("name", ["Policy", "Policy.generate", "Policy.stream", "Policy.rollout", "Reward", "Reward.score", "Dataset"])
def test_classes_and_methods_are_documented(name):
    kind, _, method = name.partition(".")
    found = getattr(stackelberg, kind)
    words = inspect.getdoc(getattr(found, method) if method else found)
    assert all(section in words for section in ["Parameters\n---", "Raises\n---"])
    signature = inspect.signature(getattr(found, method or "__init__"))
    listed = words.split("Parameters")[1].split("Raises\n")[0]
    named = {part.strip() for line in listed.splitlines() if not line.startswith(" ") for part in line.split(",")}
    assert set(signature.parameters) - {"self", "settings"} <= named
    if name == "Policy.generate":
        assert set(_policy.KNOWN) <= named


def test_fields_are_documented():
    results = ["Threshold", "Interval", "Follower", "KlBudget", "Utility", "Kl", "Shaped", "Answer", "Chunk", "Guidance"]
    trainings = ["Epoch", "Explained", "Metric", "RewardTraining", "ValueTraining", "Evaluation"]
    for name in [*results, *trainings]:
        kind = getattr(stackelberg, name)
        source = inspect.getsource(kind)
        own = [field for field in inspect.get_annotations(kind) if not field.startswith("_")]
        assert dataclasses.is_dataclass(kind) and kind.__doc__ and all(f'    {field}: ' in source for field in own)
        assert source.count('"""') >= 2 * (len(own) + 1)
