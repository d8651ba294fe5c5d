"""Rollouts: the datasets of the command line, read as records."""

import json
import subprocess

import numpy as np
import pytest
from conftest import files

import stackelberg

PROMPTS = ["How are you?", "Tell me a joke.", "What is the capital of France?", "Count to three.", "Say hello."]
SETTINGS = {"samples": 3, "seed": 3, "prompts_per_shard": 2, "temperature": 0.9, "top_k": 50}


@pytest.fixture(scope="module")
def expected(program, tmp_path_factory):
    """The folder of a dataset of the command line."""
    folder = tmp_path_factory.mktemp("rollouts")
    prompts, out = folder / "prompts.jsonl", folder / "data"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = [program, "rollout", "--prompts", prompts, "--out", out, "--max-new-tokens", "6", *flags]
    subprocess.run(command, check=True, capture_output=True)
    return out


def draw(policy, out, prompts=PROMPTS, **settings):
    return policy.rollout(prompts, out=out, **{**SETTINGS, "max_tokens": 6, **settings})


def test_datasets_are_those_of_the_command_line(policy, expected, tmp_path):
    told = []
    dataset = draw(policy, tmp_path / "list", progress=lambda done, total: told.append((done, total)))
    assert files(dataset.folder) == files(expected) and len(files(expected)) == 7
    assert told[0] == (0, 5) and told[-1] == (5, 5) and told == sorted(told)
    assert dataset.missing == [] and dataset.manifest["samples"] == 3 and dataset.manifest["reward"]["name"] == "sentiment"
    file = draw(policy, tmp_path / "file", prompts=expected.parent / "prompts.jsonl", batch_size=2)
    assert files(file.folder) == files(expected)
    # A complete dataset is left as it is.
    again = draw(policy, tmp_path / "file", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (5, 5) and files(again.folder) == files(expected)


def test_samples_are_records_and_columns(policy, expected):
    dataset = stackelberg.Dataset(expected)
    rows, columns = dataset.records(), dataset.columns()
    assert len(rows) == 15 and list(rows[0]) == list(columns)
    assert [row["prompt_id"] for row in rows[::3]] == dataset.manifest["prompts"]["ids"]
    assert [row["sample"] for row in rows] == [0, 1, 2] * 5 and {row["seed"] for row in rows} == {3}
    assert columns["reward"].shape == (15,) and columns["reward"].tolist() == [row["reward"] for row in rows]
    assert set(columns["finish_reason"]) <= {"stop", "length"}
    scores = stackelberg.Reward("sentiment", policy).score([PROMPTS[2]], [rows[6]["response"]])
    assert scores[0] == pytest.approx(rows[6]["reward"], abs=1e-9)
    states = list(dataset.hidden())
    assert [one.shape for one in states] == [(len(row["tokens"]), 576) for row in rows]
    assert states[0].dtype == np.float16 and all(np.isfinite(one).all() for one in states)


def test_shaped_columns(policy, program, expected, tmp_path):
    dataset = draw(policy, tmp_path / "data")
    subprocess.run([program, "threshold", dataset.folder, "--shaping", "hard", "--bound", "2"], check=True, capture_output=True)
    columns = dataset.columns()
    shaped = stackelberg.shape(columns["reward"], groups=columns["prompt_id"], rule="hard", bound=2.0)
    assert columns["shaped_hard"].tolist() == shaped.shaped.tolist()
    assert columns["threshold_hard"][::3].tolist() == shaped.threshold.tolist()


def test_what_is_stopped_is_continued(policy, expected, tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(policy, tmp_path / "data", batch_size=1, progress=stop)
    assert 0 < len(stackelberg.Dataset(tmp_path / "data").missing) < 3
    with pytest.raises(ValueError, match="shards are not there yet, the first is number"):
        stackelberg.Dataset(tmp_path / "data").records()
    assert files(draw(policy, tmp_path / "data").folder) == files(expected)


def test_parts_make_a_whole(policy, expected, tmp_path):
    first = draw(policy, tmp_path / "data", shard="0/2")
    assert first.missing == [1]
    assert files(draw(policy, tmp_path / "data", shard="1/2").folder) == files(expected)


def test_interrupts(python):
    said = python("""
import json, os, signal, threading, time
import stackelberg
policy = stackelberg.Policy()
draw = lambda **more: policy.rollout(
    [f"Count to {i}." for i in range(40)], out="data", samples=4, max_tokens=60, prompts_per_shard=1, batch_size=4, **more
)
sent = []
def interrupt():
    while not os.path.exists("data/rollouts-00000.parquet"):
        time.sleep(0.01)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    draw()
except KeyboardInterrupt:
    took = time.perf_counter() - sent[0]
    left = stackelberg.Dataset("data").missing
    time.sleep(0.5)
    print(json.dumps([took, len(left), left == stackelberg.Dataset("data").missing]))
""")
    took, left, stopped = json.loads(said)
    assert took < 2 and 0 < left < 40 and stopped


def test_other_rewards(policy, tmp_path):
    def short(prompts, answers):
        assert len(prompts) == len(answers)
        return [-float(len(answer)) for answer in answers]

    rows = draw(policy, tmp_path / "function", reward=short, hidden=False).records()
    assert [row["reward"] for row in rows] == [-float(len(row["response"])) for row in rows]
    assert stackelberg.Dataset(tmp_path / "function").manifest["reward"]["name"] == "function:short"
    none = draw(policy, tmp_path / "none", reward=None, hidden=False)
    assert {row["reward"] for row in none.records()} == {None} or np.isnan(none.columns()["reward"]).all()
    with pytest.raises(ValueError, match="the dataset has no hidden states"):
        next(none.hidden())

    def broken(prompts, answers):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        draw(policy, tmp_path / "broken", reward=broken)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 4}, "begun with samples 3, this run has 4: use the same settings or another folder"),
        ({"reward": "harmless"}, "begun with reward.hash"),
        ({"samples": 0}, "samples is 0"),
        ({"top_p": 2.0}, "top-p is 2: it must be "),
        ({"prompts": []}, "prompts: no prompts"),
        ({"prompts": ["a", " "]}, "prompts:2: prompt: it is empty"),
        ({"prompts": [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}]}, "prompts:2: id: 'a' is that of prompts:1 too"),
        ({"prompts_per_shard": 0}, "prompts_per_shard is 0: it must be a whole number between 1 and 65536"),
        ({"batch_size": 5000}, "batch_size is 5000: it must be a whole number between 1 and 4096"),
        ({"shard": "2/2"}, "shard: give I/N with I from 0 to N - 1, as 0/4"),
        ({"reward": "kindness"}, "unknown reward 'kindness': known are "),
    ],
)
def test_errors(policy, expected, tmp_path, settings, words):
    before = files(expected)
    out = expected if "begun" in words else tmp_path / "data"
    with pytest.raises(ValueError) as found:
        draw(policy, out, **settings)
    assert words in str(found.value) and files(expected) == before
    if out != expected:
        assert not out.exists()


def test_types_and_files(policy, tmp_path):
    for settings in [{"samples": "3"}, {"temperature": "hot"}, {"reward": 3}, {"prompts": 3}, {"seed": 1.5}]:
        with pytest.raises(TypeError):
            draw(policy, tmp_path / "data", **settings)
    with pytest.raises(ValueError, match="it has no manifest.json"):
        stackelberg.Dataset(tmp_path)
    with pytest.raises(OSError, match="missing.jsonl"):
        draw(policy, tmp_path / "data", prompts="missing.jsonl")
