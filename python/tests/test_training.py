"""Heads: those of the command line, with their cards."""

import json
import re
import subprocess

import pytest
from conftest import files

import stackelberg

pytestmark = pytest.mark.filterwarnings("ignore:8 prompts without a finished sample")

VALUE = {"shaping": "hard", "bound": 3.0, "width": 8, "second_width": 4, "lr": 0.001, "epochs": 3, "validation": 0.3, "seed": 1}


@pytest.fixture(scope="module")
def dataset(policy, tmp_path_factory):
    prompts = [f"Tell me about the number {i}." for i in range(8)]
    return policy.rollout(prompts, out=tmp_path_factory.mktemp("data") / "rollouts", samples=4, max_tokens=12, temperature=1.0)


def flags(settings):
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def both(program, tmp_path, monkeypatch, arguments, train):
    """What is printed, and what is returned. The files of both must be equal."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    done = subprocess.run([program, "train", *map(str, arguments)], cwd=theirs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ours)
    found = train()
    assert files(ours) == files(theirs)
    return done.stdout, found


def test_value_heads_are_those_of_the_command_line(program, dataset, tmp_path, monkeypatch):
    told = []
    said, found = both(
        program,
        tmp_path,
        monkeypatch,
        ["value", dataset.folder, "--out", "v.safetensors", *flags(VALUE)],
        lambda: stackelberg.train_value(dataset, "v.safetensors", **VALUE, progress=lambda *done: told.append(done)),
    )
    assert sorted(files(".")) == ["v-foresight.svg", "v.md", "v.safetensors", "v.svg"]
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)] and len(found.epochs) == 3
    assert f"kept epoch {found.best + 1} of 3" in said and found.conclusion in said
    explained = re.search(r"explains (\S+) percent .* last token, (\S+) along", said)
    assert [float(one) for one in explained.groups()] == [
        round(100 * found.explained.last, 1),
        round(100 * found.explained.along, 1),
    ]
    card = (tmp_path / "ours" / "v.md").read_text()
    assert all(f"| {epoch.training:.4f} | {epoch.last:.4f} | {epoch.along:.4f} |" in card for epoch in found.epochs)
    assert found.best == min(range(3), key=lambda i: found.epochs[i].last)
    assert [row["tokens"] for row in found.foresight] == [0, 1, 2, 4, 8, 16, 32]
    assert found.counts["training_prompts"] + found.counts["validation_prompts"] == 8
    first = found.foresight[0]
    assert re.search(rf"^ +0 +{first['samples']} +{first['prompts']} +{first['value']:.3f} ", said, re.MULTILINE)
    assert str(found.head) == "v.safetensors"


def test_a_stopped_training_is_continued(dataset, tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.warns(UserWarning, match="8 prompts without a finished sample: a larger --max-new-tokens may help"):
        stackelberg.train_value(dataset, tmp_path / "a" / "v.safetensors", **VALUE)
    out = tmp_path / "b" / "v.safetensors"
    with pytest.raises(KeyboardInterrupt):
        stackelberg.train_value(dataset.folder, out, **VALUE | {"epochs": 2000}, progress=stop)
    assert sorted(files(tmp_path / "b")) == ["v.training"]
    with pytest.raises(ValueError, match="a stopped run left this file: continue the run with --resume, or delete the file"):
        stackelberg.train_value(dataset, out, **VALUE)
    out.with_suffix(".training").unlink()
    with pytest.raises(KeyboardInterrupt):
        stackelberg.train_value(dataset, out, **VALUE, progress=stop)
    stackelberg.train_value(dataset, out, resume=True, **VALUE)
    ours, theirs = files(tmp_path / "a"), files(tmp_path / "b")
    assert ours.keys() == theirs.keys() and ours["v.safetensors"] == theirs["v.safetensors"]


def test_interrupts(python, dataset):
    said = python(f"""
import json, os, signal, threading, time
import stackelberg
sent = []
def interrupt():
    while not os.path.exists("v.training"):
        time.sleep(0.01)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    stackelberg.train_value({dataset.folder!r}, "v.safetensors", epochs=60000, patience=60000, width=8, second_width=8, validation=0.3)
except KeyboardInterrupt:
    print(json.dumps([time.perf_counter() - sent[0], sorted(os.listdir("."))]))
""")
    took, left = json.loads(said)
    assert took < 2 and left == ["v.training"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Files of preference pairs and of rated texts."""
    folder = tmp_path_factory.mktemp("judged")
    good, bad = ["wonderful", "lovely", "great", "superb"], ["horrible", "awful", "bad", "dreadful"]
    things = ["dog", "trip", "meal", "film", "day", "book"]
    pairs = [
        {"prompt": f"How was the {thing}?", "chosen": f"The {thing} was {yes}.", "rejected": f"The {thing} was {no}."}
        for thing in things
        for yes, no in zip(good, bad, strict=True)
    ]
    rated = [
        {"text": f"The {thing} was {word}.", "score": score}
        for thing in things
        for words, score in [(good, 1.0), (bad, -1.0), (["red", "here"], 0.0)]
        for word in words
    ]
    for name, rows in [("pairs", pairs), ("checks", pairs[::3]), ("rated", rated)]:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_reward_heads_are_those_of_the_command_line(program, policy, judged, tmp_path, monkeypatch):
    pairs, checks = judged / "pairs.jsonl", judged / "checks.jsonl"
    arguments = ["--pairs", pairs, "--held-out", checks, "--out", "h.safetensors", "--about", "it is liked", "--folds", "3"]
    told = []
    said, found = both(
        program,
        tmp_path,
        monkeypatch,
        ["reward", *arguments, "--seed", "2", "--model", "smollm2-135m"],
        lambda: stackelberg.train_reward(
            pairs=pairs,
            held_out=checks,
            out="h.safetensors",
            about="it is liked",
            folds=3,
            seed=2,
            policy=policy,
            progress=lambda *done: told.append(done),
        ),
    )
    assert sorted(files(".")) == ["h.md", "h.safetensors"] and (24, 24) in told
    lines = [f"{m.data}: {m.name} {m.value:.4f} ± {m.standard_error:.4f}" for m in found.metrics]
    assert said.splitlines() == [*lines, "wrote h.safetensors and its card"] and len(lines) == 4
    assert found.data[0] == {"name": "pairs.jsonl", "rows": 24, "groups": 6, "held_out": False}
    scores = stackelberg.Reward(found.head, policy).score(["How was the car?"] * 2, ["The car was great.", "The car was awful."])
    assert scores[0] > scores[1]


def test_ratings_and_embedders(program, judged, tmp_path, monkeypatch):
    rated = judged / "rated.jsonl"
    said, found = both(
        program,
        tmp_path,
        monkeypatch,
        ["reward", "--rated", rated, "--out", "h.safetensors", "--embedder", "all-minilm-l6-v2"],
        lambda: stackelberg.train_reward(rated=[rated], out="h.safetensors", embedder="all-minilm-l6-v2"),
    )
    assert [metric.name for metric in found.metrics] == ["Pearson r", "R²"] and f"{found.metrics[0].value:.4f}" in said


def test_nothing_is_written_where_it_is_stopped(policy, judged, tmp_path):
    def stop(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        stackelberg.train_reward(pairs=judged / "pairs.jsonl", out=tmp_path / "h.safetensors", policy=policy, progress=stop)
    assert files(tmp_path) == {}


def test_the_words_are_those_of_the_command_line(program, policy, dataset, judged, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"chosen": "a"}\n')
    out = str(tmp_path / "h.safetensors")
    value = ["value", dataset.folder, "--out"]
    for arguments, call in [
        (["reward", "--out", out], lambda: stackelberg.train_reward(out=out)),
        (["reward", "--pairs", broken, "--out", out], lambda: stackelberg.train_reward(pairs=broken, out=out)),
        (["reward", "--pairs", broken, "--out", "h.bin"], lambda: stackelberg.train_reward(pairs=broken, out="h.bin")),
        ([*value, "missing/v.safetensors"], lambda: stackelberg.train_value(dataset, "missing/v.safetensors")),
        ([*value, out, "--lr", "-1"], lambda: stackelberg.train_value(dataset, out, lr=-1)),
        ([*value, out, "--validation", "1.5"], lambda: stackelberg.train_value(dataset, out, validation=1.5)),
        ([*value, out, "--bound", "-1"], lambda: stackelberg.train_value(dataset, out, bound=-1)),
        ([*value, out, "--resume"], lambda: stackelberg.train_value(dataset, out, resume=True)),
        (["value", tmp_path, "--out", out], lambda: stackelberg.train_value(tmp_path, out)),
    ]:
        said = subprocess.run([program, "train", *map(str, arguments)], capture_output=True, text=True)
        with pytest.raises(ValueError) as found:
            call()
        assert said.returncode == 2 and said.stderr.strip().endswith(str(found.value)), said.stderr
    assert sorted(files(tmp_path)) == ["broken.jsonl"]


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"epochs": 0}, ValueError, "epochs is 0: it must be a whole number between 1 and 65536"),
        ({"epochs": 1.5}, TypeError, "epochs must be a whole number, not float"),
        ({"width": 1 << 20}, ValueError, "width is 1048576: it must be a whole number between 1 and 65536"),
        ({"lr": "fast"}, TypeError, "lr must be a number, not str"),
        ({"seed": -1}, ValueError, "seed is -1: it must be a whole number between 0 and "),
        ({"memory_mb": 1 << 30}, ValueError, "memory_mb is "),
        ({"strength": 1.0, "beta": 1.0}, ValueError, "strength and beta exclude each other: give one"),
        ({"shaping": "magic"}, ValueError, "unknown shaping rule 'magic'"),
        ({"kl_budget": 1.0}, TypeError, "kl_budget"),
    ],
)
def test_settings(dataset, tmp_path, settings, kind, words):
    with pytest.raises(kind) as found:
        stackelberg.train_value(dataset, tmp_path / "v.safetensors", **settings)
    assert words in str(found.value) and files(tmp_path) == {}


def test_exclusive_settings(policy, judged, tmp_path):
    pairs, out = judged / "pairs.jsonl", tmp_path / "h.safetensors"
    for settings, words in [
        ({"pairs": pairs, "rated": pairs}, "pairs and rated exclude each other"),
        ({"pairs": pairs, "policy": policy, "embedder": "all-minilm-l6-v2"}, "policy and embedder exclude each other"),
        ({"pairs": pairs, "text_format": "raw", "embedder": "all-minilm-l6-v2"}, "text_format has no effect with embedder"),
        ({"pairs": pairs, "folds": 1}, "folds is 1: it must be a whole number between 2 and 100"),
        ({"pairs": pairs, "text_format": "html"}, "unknown text format 'html'"),
    ]:
        with pytest.raises(ValueError, match=words):
            stackelberg.train_reward(out=out, **settings)
    with pytest.raises(OSError, match="cannot read "):
        stackelberg.train_reward(pairs=tmp_path, out=out)
