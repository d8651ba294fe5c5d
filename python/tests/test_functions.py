"""Python functions as rewards."""

import threading
import time
import traceback

import numpy as np
import pytest
from engines import PROMPT

import stackelberg
from stackelberg import Guidance


def short(prompts, answers):
    return [-float(len(answer)) for answer in answers]


def test_a_function_chooses(policy):
    calls = []

    def short(prompts, answers):
        calls.append((prompts, answers))
        return np.array([-len(answer) for answer in answers], dtype=np.float32)

    sampled = policy.generate(PROMPT, n=1, temperature=0.7, top_p=0.9, max_tokens=16)
    best = policy.generate(PROMPT, guidance=Guidance(method="best-of-n", reward=short, samples=6), max_tokens=16)
    # All samples are scored in one call.
    (prompts, answers), *rest = calls
    assert prompts == [PROMPT] * 6 and len(answers) == 6 and not rest
    assert best.text == min(answers, key=len) and best.reward == -len(best.text)
    assert len(best.text) <= len(sampled[0].text) and best.settings["reward"] == "short"


def test_a_function_guides_every_step(policy):
    sizes = set()

    def vowels(prompts, answers):
        assert all(prompt == [{"role": "user", "content": PROMPT}] for prompt in prompts)
        sizes.add(len(answers))
        return [sum(answer.count(vowel) for vowel in "aeiou") for answer in answers]

    messages = [{"role": "user", "content": PROMPT}]
    guidance = Guidance(method="args", reward=vowels, shaping="raw", strength=3.0, candidates=5, skip=False)
    guided = policy.generate(messages, guidance=guidance, max_tokens=12)
    base = policy.generate(messages, max_tokens=12)
    assert guided.reward == sum(guided.text.count(vowel) for vowel in "aeiou")
    assert guided.reward > sum(base.text.count(vowel) for vowel in "aeiou")
    assert 5 in sizes and guided.steered > 0 and guided.reward_calls == 12


def test_calls_have_the_texts_of_several_answers(policy):
    calls = []

    def vowels(prompts, answers):
        time.sleep(0.01)
        calls.append(len(set(prompts)))
        return [sum(answer.count(vowel) for vowel in "aeiou") for answer in answers]

    guidance = Guidance(reward=vowels, candidates=4, skip=False)
    prompts = [f"Name {number} animals." for number in range(2, 8)]
    together = policy.generate(prompts, guidance=guidance, max_tokens=6)
    assert max(calls) > 1 and len(calls) < 6 * 7
    assert together == [policy.generate(prompt, guidance=guidance, max_tokens=6) for prompt in prompts]


def test_an_exception_about_one_answer_is_its_own():
    def picky(prompts, answers):
        time.sleep(0.01)
        if any("cats" in prompt for prompt in prompts):
            raise Broken("no cats")
        return [0.0] * len(answers)

    with stackelberg.Policy(rewards={"picky": picky}) as policy:
        outcomes = {}

        def work(prompt):
            try:
                outcomes[prompt] = policy.generate(prompt, guidance=Guidance(reward="picky", skip=False), max_tokens=8).text
            except Broken as error:
                outcomes[prompt] = str(error)

        prompts = ["Do you like cats?", "Do you like dogs?", "Do you like birds?"]
        workers = [threading.Thread(target=work, args=[prompt]) for prompt in prompts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        base = [policy.generate(prompt, max_tokens=8).text for prompt in prompts]
    assert [outcomes[prompt] for prompt in prompts] == ["no cats", *base[1:]]


def test_functions_by_name():
    with stackelberg.Policy(rewards={"short": short, "kind": "harmless"}) as policy:
        guidance = {"method": "best-of-n", "samples": 4}
        named = policy.generate(PROMPT, guidance=guidance | {"reward": "short"}, max_tokens=12)
        given = policy.generate(PROMPT, guidance=guidance | {"reward": short}, max_tokens=12)
        assert named.text == given.text and named.reward == given.reward
        mixed = policy.generate(PROMPT, guidance=guidance | {"reward": "short*0.1+kind"}, max_tokens=12)
        assert mixed.rewards["short"] == -len(mixed.text)
        assert mixed.reward == pytest.approx(0.1 * mixed.rewards["short"] + mixed.rewards["kind"])
        with pytest.raises(ValueError) as found:
            policy.generate(PROMPT, guidance={"method": "args"})
        assert "the method args needs a reward; known are short, kind, harmless, " in str(found.value)


def test_functions_may_generate(policy):
    """A reward function uses the policy that it guides."""

    def echo(prompts, answers):
        told = policy.generate("Say a word.", max_tokens=2)
        return [float(len(told.text) > 0)] * len(answers)

    answer = policy.generate(PROMPT, guidance=Guidance(method="best-of-n", reward=echo, samples=2), max_tokens=4)
    assert answer.reward == 1.0


class Broken(Exception):
    """An exception of a test."""


@pytest.mark.parametrize("method", ["args", "best-of-n", "blockwise"])
def test_exceptions_are_unchanged_and_fail_one_call(policy, method):
    raised = []

    def broken(prompts, answers):
        raised.append(Broken("no reward", len(answers)))
        raise raised[-1]

    other = []
    guidance = Guidance(method="best-of-n", reward=short, samples=3)
    alone = policy.generate(PROMPT, guidance=guidance, max_tokens=24)
    worker = threading.Thread(target=lambda: other.append(policy.generate(PROMPT, guidance=guidance, max_tokens=24)))
    worker.start()
    with pytest.raises(Broken) as found:
        policy.generate([PROMPT, "Hello!"], guidance=Guidance(method=method, reward=broken), max_tokens=24)
    worker.join()
    assert any(found.value is one for one in raised)
    frames = [frame.name for frame in traceback.extract_tb(found.value.__traceback__)]
    assert "broken" in frames and "generate" in frames
    assert other == [alone]


@pytest.mark.parametrize(
    ("rewards", "kind", "words"),
    [
        (lambda answers: [1.0], ValueError, "returned 1 rewards for 3 answers"),
        (lambda answers: [0.0, float("nan"), 1.0], ValueError, "rewards[1] of odd is NaN: it must be a finite number"),
        (lambda answers: np.array([0.0, 1.0, -np.inf]), ValueError, "rewards[2] of odd is -inf: it must be a finite number"),
        (lambda answers: [0.0, 1.0, None], TypeError, "rewards[2] of odd is None: it must be a finite number"),
        (lambda answers: answers, TypeError, "rewards of odd must be numbers, not "),
        (lambda answers: None, TypeError, "odd returned None: it must return one number for each answer"),
        (lambda answers: 1.0, ValueError, "rewards of odd must have shape (3,), not ()"),
        (lambda answers: np.zeros((3, 1)), ValueError, "rewards of odd must have shape (3,), not (3, 1)"),
    ],
)
def test_wrong_rewards(policy, rewards, kind, words):
    def odd(prompts, answers):
        return rewards(answers)

    with pytest.raises(kind) as found:
        policy.generate(PROMPT, guidance=Guidance(method="best-of-n", reward=odd, samples=3), max_tokens=3)
    assert words in str(found.value)


def test_streams_end_when_they_are_closed(policy):
    calls = []

    def count(prompts, answers):
        calls.append(len(answers))
        return [0.0] * len(answers)

    guidance = Guidance(reward=count, skip=False)
    for end in ["close", "drop", "with"]:
        stream = policy.stream(PROMPT, guidance=guidance, max_tokens=5000, ignore_eos=True)
        assert next(stream).text is not None
        if end == "close":
            stream.close()
            assert list(stream) == []
        elif end == "drop":
            del stream
        else:
            with stream:
                next(stream)
        policy.generate(PROMPT, max_tokens=3)
        before = len(calls)
        policy.generate(PROMPT, max_tokens=6)
        assert len(calls) == before
