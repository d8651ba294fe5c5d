"""Ray Data on this machine: against `stackelberg serve` with a tiny model, and 10,000 rows against a server that costs nothing."""

import sys

import numpy as np
import pytest
import ray
from conftest import ROOT
from test_adapters import chat
from test_adapters import server as mock

import stackelberg
from stackelberg.ray import build_processor, shape

sys.path.append(str(ROOT / ".ci"))
from server import KEY, server  # noqa: E402
from tiny_model import tiny  # noqa: E402



# Workers do not import this file.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def test_samples_and_rewards_of_the_server(program, tmp_path):
    model, head = tiny(tmp_path)
    with server(program, "--model", model, "--reward", f"kind={head}") as (url, _):
        settings = {"samples": 4, "api_key": KEY, "max_tokens": 6, "temperature": 1.0, "seed": 3}
        rows = [{"prompt": f"w{i} w{i + 1}", "source": i} for i in range(10, 16)]
        rows.append({"prompt": rows[0]["prompt"], "source": 99})
        found = shape(build_processor(url, reward="kind", **settings)(ray.data.from_items(rows)), rule="hard", bound=2.0).take_all()
        assert len(found) == 28 and {row["source"] for row in found} == {*range(10, 16), 99}
        groups = {}
        for row in found:
            groups.setdefault(row["prompt"], []).append(row)
        assert sorted(map(len, groups.values())) == [4] * 5 + [8]
        for group in groups.values():
            expected = stackelberg.shape([row["reward"] for row in group], rule="hard", bound=2.0)
            assert [row["shaped"] for row in group] == expected.shaped.tolist()
            assert {row["threshold"] for row in group} == {float(expected.threshold)}
        with pytest.raises(Exception, match="refused a request: 4"):
            build_processor(url, reward="unknown", **settings)(ray.data.from_items(rows)).take_all()


def test_ten_thousand_rows():
    with mock(chat) as url:
        prompts = ray.data.from_items([{"prompt": f"prompt {i}"} for i in range(1250)])
        sample = build_processor(url, samples=8, reward=lambda prompts, answers: [float(hash_of(text)) for text in answers], workers=2)
        rows = shape(sample(prompts), rule="srs", bound=2.0).to_pandas()
    assert len(rows) == 10_000 and rows.groupby("prompt_id").size().tolist() == [8] * 1250
    expected = stackelberg.shape(rows["reward"].to_numpy(), groups=rows["prompt_id"].to_numpy(), rule="srs", bound=2.0)
    np.testing.assert_array_equal(rows["shaped"].to_numpy(), expected.shaped)
    np.testing.assert_array_equal(rows.groupby("prompt_id", sort=False)["threshold"].first().to_numpy(), expected.threshold)


def hash_of(text):
    """A number from 0 to 6 that depends on all of the text."""
    return sum(i * ord(character) for i, character in enumerate(text)) % 7


def test_messages_and_missing_rewards():
    rewards = [None if i == 4 else i / 10 for i in range(9)]
    messages = [[{"role": "user", "content": f"{i % 3}"}] for i in range(9)]
    items = [{"prompt": messages[i], "prompt_id": i % 3, "reward": rewards[i]} for i in range(9)]
    found = shape(ray.data.from_items(items), missing="drop", rule="hard", bound=2.0).to_pandas()
    assert np.isnan(found["shaped"]).sum() == 1 and len(found) == 9
    assert found["prompt"][0][0]["role"] == "user"
    with pytest.raises(Exception, match=r"group 1: rewards\[1\] is None"):
        shape(ray.data.from_items(items), rule="hard").take_all()
