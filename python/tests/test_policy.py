"""Answers of the engine: those of the command line, alone or together, whole or streamed."""

import json
import subprocess
import threading

import pytest
from engines import PROMPT, flags, generated, value_head

import stackelberg
from stackelberg import Guidance

CASES = {
    "base": ({"method": "base", "reward": "sentiment"}, {}),
    "base, sampled": ({"method": "base", "reward": "sentiment"}, {"temperature": 0.8, "top_p": 0.9, "seed": 3}),
    "args": ({"reward": "sentiment"}, {}),
    "args, bound": ({"method": "args", "reward": "harmless", "bound": 3.0, "shaping": "hard", "candidates": 6}, {}),
    "args, segments": ({"method": "args", "reward": "sentiment", "score_every": 4}, {"temperature": 0.7, "seed": 1}),
    "combination": ({"reward": "sentiment*0.5+harmless", "beta": 0.5}, {}),
    "blockwise": ({"method": "blockwise", "reward": "sentiment", "samples": 3, "block": 8}, {}),
    "best-of-n": ({"method": "best-of-n", "reward": "sentiment", "samples": 4}, {"seed": 5}),
}
SAME = ["reward", "mean_log_prob", "kl", "kl_bound", "steered", "reward_calls", "skipped", "tokens_run"]


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_the_command_line(program, policy, tmp_path, case):
    guidance, sampling = CASES[case]
    sampling = {"max_tokens": 24, **sampling}
    line, steps = generated(program, tmp_path, PROMPT, *flags(guidance | sampling))
    answer = policy.generate(PROMPT, guidance=Guidance(**guidance, trace=True), **sampling)
    assert answer.text == line["response"] and answer.rewards == line.get("rewards", {})
    assert {name: getattr(answer, name) for name in SAME} == {name: line.get(name) for name in SAME}
    assert len(answer.token_ids) == line["tokens"] and answer.finish_reason == line["finish_reason"]
    chosen = [step["chosen"] for step in steps]
    assert chosen[: len(answer.token_ids)] == answer.token_ids and len(chosen) - len(answer.token_ids) in (0, 1)
    assert [step | {"id": "0"} for step in answer.trace] == steps
    # A trace changes nothing else.
    without = policy.generate(PROMPT, guidance=guidance, **sampling)
    assert without.trace is None and (without.text, without.token_ids) == (answer.text, answer.token_ids)


@pytest.mark.parametrize("method", [{"method": "cd", "strength": 2.0}, {"method": "blockwise", "block": 8, "samples": 3}], ids=str)
def test_value_heads_guide(program, policy, tmp_path, method):
    file = tmp_path / "value.safetensors"
    value_head(file)
    guidance = method | {"reward": "sentiment", "value": file}
    line, _ = generated(program, tmp_path, PROMPT, *flags(guidance | {"max_tokens": 16}))
    with pytest.warns(UserWarning, match="the value head does not state which model it was trained on"):
        answer = policy.generate(PROMPT, guidance=guidance, max_tokens=16)
    assert (answer.text, answer.reward, answer.kl) == (line["response"], line["reward"], line["kl"])
    assert answer.settings["value"] == str(file)


def test_value_heads_by_name(tmp_path):
    file = tmp_path / "value.safetensors"
    value_head(file)
    with stackelberg.Policy(values={"v": str(file)}) as policy, pytest.warns(UserWarning):
        named = policy.generate(PROMPT, guidance={"method": "cd", "value": "v"}, max_tokens=8)
        assert named.text == policy.generate(PROMPT, guidance={"method": "cd", "value": str(file)}, max_tokens=8).text
    value_head(file, width=12)
    with pytest.raises(ValueError, match="reads hidden states of width 12, the policy's have 576"):
        stackelberg.Policy(values={"v": str(file)})


def test_without_guidance_the_policy_answers(policy):
    answer = policy.generate(PROMPT, max_tokens=12)
    assert answer == policy.generate(PROMPT, guidance={"method": "base"}, max_tokens=12)
    assert answer.settings["method"] == "base" and answer.reward is None and answer.steered == 0
    assert answer.prompt == PROMPT and len(answer.token_ids) == 12 and answer.finish_reason == "length"


def test_several_prompts_and_answers(policy):
    prompts = [PROMPT, "What is the capital of France?", [{"role": "user", "content": PROMPT}]]
    guidance = Guidance(reward="sentiment")
    alone = [policy.generate(prompt, guidance=guidance, max_tokens=12) for prompt in prompts]
    together = policy.generate(prompts, guidance=guidance, max_tokens=12)
    assert together == alone and together[0].text == together[2].text != together[1].text
    assert [answer.prompt for answer in together] == prompts
    four = policy.generate(prompts[:2], n=2, temperature=1.0, max_tokens=12)
    assert [len(answers) for answers in four] == [2, 2]
    assert four[0][0] == policy.generate(PROMPT, temperature=1.0, max_tokens=12)
    assert four[1] == policy.generate(prompts[1], n=2, temperature=1.0, max_tokens=12)
    assert len({answer.text for answers in four for answer in answers}) == 4
    assert policy.generate([]) == [] and len(policy.generate(PROMPT, n=1, max_tokens=2)) == 1


def test_messages_and_layout(policy):
    messages = [{"role": "system", "content": "You answer in French."}, {"role": "user", "content": "Hello!"}]
    with_system = policy.generate("Hello!", system="You answer in French.", max_tokens=8)
    assert with_system.text == policy.generate(messages, max_tokens=8).text != policy.generate("Hello!", max_tokens=8).text
    raw = policy.generate("The capital of France is", prompt_format="raw", max_tokens=2)
    assert raw.text.strip().startswith("Paris")


def test_stop_texts(policy):
    whole = policy.generate("Count from one to ten.", max_tokens=40)
    stop = whole.text[8:12]
    cut = policy.generate("Count from one to ten.", max_tokens=40, stop=stop)
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert policy.generate("Count from one to ten.", max_tokens=40, stop=["no such text", stop]).text == cut.text


def test_threads_share_a_policy(policy):
    settings = [
        {"guidance": Guidance(reward="sentiment")},
        {"guidance": Guidance(method="best-of-n", reward="harmless", samples=3), "seed": 2},
        {"temperature": 0.9, "seed": 4},
    ]
    alone = [policy.generate(PROMPT, max_tokens=20, **one) for one in settings]
    found = [None] * len(settings)
    start = threading.Barrier(len(settings))

    def work(number):
        start.wait()
        found[number] = [policy.generate(PROMPT, max_tokens=20, **settings[number]) for _ in range(2)]

    workers = [threading.Thread(target=work, args=[number]) for number in range(len(settings))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [[answer, answer] for answer in alone]


@pytest.mark.parametrize("guidance", [None, {"reward": "sentiment"}, {"method": "best-of-n", "reward": "sentiment", "samples": 3}])
def test_streams(policy, guidance):
    whole = policy.generate("What is the capital of France?", guidance=guidance, max_tokens=16)
    stream = policy.stream("What is the capital of France?", guidance=guidance, max_tokens=16)
    with pytest.raises(ValueError, match="the answer is not finished"):
        stream.answer  # noqa: B018
    chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == whole.text and stream.answer == whole
    assert [chunk.token_id for chunk in chunks][: len(whole.token_ids)] == whole.token_ids
    if whole.settings["method"] == "args":
        assert sum(chunk.steered for chunk in chunks) == whole.steered > 0
    assert list(stream) == []


def test_streams_have_steps(policy):
    guidance = Guidance(reward="sentiment", trace=True)
    stream = policy.stream(PROMPT, guidance=guidance, max_tokens=6)
    steps = [chunk.step for chunk in stream]
    assert steps == stream.answer.trace == policy.generate(PROMPT, guidance=guidance, max_tokens=6).trace
    assert len(steps[0]["candidates"]) == 10 and max(steps[0]["shaped"]) <= steps[0]["bound"]


def test_records(policy):
    answers = policy.generate([PROMPT, "Hello!"], guidance=Guidance(reward="sentiment", trace=True), max_tokens=4)
    records = [answer.to_dict() for answer in answers]
    assert json.loads(json.dumps(records)) == records
    assert records[0]["settings"]["reward"] == "sentiment" and records[0]["settings"]["kl_budget"] == 0.3
    with pytest.raises(AttributeError):
        answers[0].text = "another"


def test_rewards_score_texts(policy):
    texts = [f"It was {word}." for word in ["wonderful", "horrible", "a table"] * 30]
    alone, shared = stackelberg.Reward("sentiment"), stackelberg.Reward("sentiment", policy)
    scores = alone.score(None, texts)
    assert scores.shape == (90,) and scores[0] > scores[2] > scores[1]
    assert (scores.reshape(30, 3) == scores[:3]).all() and (shared.score(None, texts) == scores).all()
    answer = policy.generate(PROMPT, guidance=Guidance(reward="sentiment"), max_tokens=12)
    assert shared.score([PROMPT], [answer.text])[0] == pytest.approx(answer.reward, abs=1e-9)
    combined = stackelberg.Reward("sentiment*2+harmless", policy).score([PROMPT], [answer.text])
    harmless = stackelberg.Reward("harmless", policy).score([PROMPT], [answer.text])
    assert combined[0] == pytest.approx(2 * answer.reward + harmless[0], abs=1e-9)
    assert alone.score([], []).shape == (0,)


def test_the_scores_are_those_of_the_command_line(program, policy):
    rows = [{"prompt": PROMPT, "response": "Say it kindly."}, {"prompt": "Hello!", "response": "Go away."}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    said = subprocess.run([program, "score", "-", "--reward", "harmless"], input=lines, capture_output=True, text=True, check=True)
    expected = [json.loads(line)["reward"] for line in said.stdout.splitlines()]
    scores = stackelberg.Reward("harmless", policy).score([row["prompt"] for row in rows], [row["response"] for row in rows])
    assert scores.tolist() == expected
