"""Evaluations: those of the command line, as records."""

import json
import math
import subprocess

import pytest
from engines import PROMPT

import stackelberg

PROMPTS = [f"{PROMPT} It is number {i}." for i in range(11)]


@pytest.fixture(scope="module")
def runs(policy):
    """Answers without and with guidance."""
    base = policy.generate(PROMPTS, guidance={"method": "base", "reward": "sentiment"}, max_tokens=12)
    guided = policy.generate(PROMPTS, guidance={"reward": "sentiment"}, max_tokens=12)
    return {"base": base, "guided": guided}


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    """The answers as files."""
    folder = tmp_path_factory.mktemp("runs")
    for name, answers in runs.items():
        records = [{"response": answer.text, "tokens": len(answer.token_ids), **answer.to_dict()} for answer in answers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return [folder / f"{name}.jsonl" for name in runs]


def test_records_are_those_of_the_command_line(program, policy, runs, written, tmp_path):
    rewards = ["sentiment", "sentiment*0.5+harmless"]
    names = [part for reward in rewards for part in ("--reward", reward)]
    command = [program, "evaluate", *written, *names, "--seed", "4", "--json", "all.json", "--each", "each.jsonl"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    expected = json.loads((tmp_path / "all.json").read_text())
    each = [json.loads(line) for line in (tmp_path / "each.jsonl").read_text().splitlines()]
    found = stackelberg.evaluate(written, rewards, policy=policy, seed=4)
    metrics = [{"run": run["run"], "answers": 11, **mean} for run in expected["runs"] for mean in run["metrics"]]
    assert found.summary == metrics and {row["metric"] for row in metrics} > {"sentiment", "harmless", "coherence", "words"}
    (compared,) = expected["comparisons"]
    wins = {won["reward"]: won for won in compared["wins"]}
    for row, mean in zip(found.comparisons, compared["differences"], strict=True):
        ends = {"run": str(written[1]), "other": str(written[0])}
        won = {name: value for name, value in wins.get(mean["metric"], {}).items() if name != "reward"}
        assert row == {**ends, **mean, **won}
    assert sum("win" in row for row in found.comparisons) == len(wins) == 3
    for row, line in zip(found.answers, each, strict=True):
        assert row["id"] == line["id"] and row["run"] == line["run"] and row["sentiment"] == line["reward"]
        assert {name: row[name] for name in ("rep_2", "diversity", "coherence", "length")} == {
            name: line[name] for name in ("rep_2", "diversity", "coherence", "length")
        }
    assert list(map(list, found.measured_by.items())) == expected["measured_by"]


def test_answers_are_those_of_their_files(policy, runs, written):
    found = stackelberg.evaluate(runs, ["sentiment"], embedder=None, policy=policy)
    of_files = stackelberg.evaluate(dict(zip(runs, written, strict=True)), ["sentiment"], embedder=None, policy=policy)
    for row in [*found.answers, *of_files.answers]:
        assert row.pop("tokens_per_second") > 0
    assert found.answers == of_files.answers and len(found.answers) == 22
    assert [row["sentiment"] for row in found.answers[:11]] == pytest.approx([answer.reward for answer in runs["base"]], abs=1e-9)
    assert found.answers[0]["tokens"] == len(runs["base"][0].token_ids) and found.answers[0]["coherence"] is None
    slow = lambda rows: [row for row in rows if row["metric"] != "tokens/s"]  # noqa: E731
    assert slow(found.summary) == slow(of_files.summary) and slow(found.comparisons) == slow(of_files.comparisons)
    (row,) = [row for row in found.comparisons if row["metric"] == "sentiment"]
    assert row["mean"] > 0 and row["win"] + row["tie"] + row["lose"] == 11
    as_dicts = {name: [answer.to_dict() for answer in answers] for name, answers in runs.items()}
    assert stackelberg.evaluate(as_dicts, ["sentiment"], embedder=None, policy=policy).summary == found.summary


def test_one_run(policy, runs):
    few = stackelberg.evaluate(runs["base"][:3], ["sentiment"], embedder=None, policy=policy)
    assert few.comparisons == [] and {row["run"] for row in few.summary} == {"answers"}
    assert all((row["low"], row["high"]) == (-math.inf, math.inf) for row in few.summary)
    plain = stackelberg.evaluate([{"prompt": "a", "response": "b c b c b c"}], embedder=None)
    assert plain.answers[0]["length"] == 6 and plain.answers[0]["rep_2"] > 50 and "tokens" in plain.answers[0]
    # Several answers to one prompt are told apart.
    twice = stackelberg.evaluate([{"prompt": "a", "response": "b"}, {"prompt": "a", "response": "c"}], embedder=None)
    assert len({row["id"] for row in twice.answers}) == 2
    unpaired = stackelberg.evaluate({"a": runs["base"], "b": runs["guided"][:2]}, embedder=None, paired=False)
    assert unpaired.comparisons == [] and {row["answers"] for row in unpaired.summary} == {11, 2}


def test_the_words_are_those_of_the_command_line(program, policy, written, tmp_path):
    short, broken = tmp_path / "short.jsonl", tmp_path / "broken.jsonl"
    short.write_text(written[1].read_text().split("\n", 1)[0])
    broken.write_text('{"prompt": "a"}\n')
    for arguments, call in [
        ([written[0], short], lambda: stackelberg.evaluate([written[0], short])),
        ([broken], lambda: stackelberg.evaluate(broken)),
        ([written[0], "--reward", "kindness"], lambda: stackelberg.evaluate(written[0], ["kindness"])),
        ([written[0], "--embedder", "missing/embedder"], lambda: stackelberg.evaluate(written[0], embedder="missing/embedder")),
    ]:
        said = subprocess.run([program, "evaluate", *map(str, arguments)], capture_output=True, text=True)
        with pytest.raises(ValueError) as found:
            call()
        assert said.returncode == 2 and said.stderr.strip().endswith(str(found.value)), (said.stderr, str(found.value))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: stackelberg.evaluate([]), ValueError, "answers: no answers"),
        (lambda: stackelberg.evaluate({}), ValueError, "there are no runs"),
        (lambda: stackelberg.evaluate({"a": [{"prompt": "x"}]}), ValueError, "a:1: no 'response', 'result' or 'output'"),
        (lambda: stackelberg.evaluate("missing.jsonl"), OSError, "missing.jsonl"),
        (lambda: stackelberg.evaluate("a", ["harmless", "harmless"]), ValueError, "rewards: harmless is given twice"),
        (lambda: stackelberg.evaluate("a", "harmless"), TypeError, "rewards must be a list of names"),
        (lambda: stackelberg.evaluate(3), TypeError, "runs must be files, a list of answers or a dictionary of runs, not int"),
        (lambda: stackelberg.evaluate([3]), TypeError, "an answer must be an Answer or a dictionary, not int"),
        (lambda: stackelberg.evaluate({"a": 3}), TypeError, "the run 'a' must be a file or a list of answers, not int"),
        (lambda: stackelberg.evaluate({1: "a"}), TypeError, "names of runs must be texts, not int"),
        (lambda: stackelberg.evaluate([{"prompt": "a", "response": "b", "x": object()}]), TypeError, "which is no JSON"),
    ],
)
def test_errors(call, kind, words):
    with pytest.raises(kind) as found:
        call()
    assert words in str(found.value)
