"""A policy on a server."""

import contextlib
import subprocess

import pytest

import stackelberg

PROMPT = "What is the capital of France?"


@pytest.fixture(scope="module")
def address(program):
    """The address of a server with the default model."""
    process = subprocess.Popen([program, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        line = next((line for line in process.stderr if line.startswith("listening on ")), None)
        assert line, "the server does not start"
        yield line.removeprefix("listening on ").strip() + "/v1"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.stderr.close()


def test_its_answers_are_those_of_the_same_model_here(policy, address):
    """The tokenizer is found by the name under which the server serves the model."""
    with stackelberg.Policy(address) as remote:
        here, there = (one.generate(PROMPT, max_tokens=12, temperature=0) for one in (policy, remote))
    assert list(there.token_ids) == list(here.token_ids) and there.text == here.text


def test_hidden_states_come_from_a_server(policy, address):
    guidance = {"method": "blockwise", "reward": "sentiment", "samples": 3, "block": 4}
    settings = {"max_tokens": 8, "temperature": 0.7, "seed": 1}
    with stackelberg.Policy(address, states=address) as remote:
        answer = remote.generate(PROMPT, guidance=guidance, **settings)
        score = stackelberg.Reward("sentiment").score([PROMPT], [answer.text])[0]
    assert answer.reward == pytest.approx(score, abs=0.05)
    with stackelberg.Policy(address) as remote, pytest.raises(ValueError, match="which a policy on a server does not give"):
        remote.generate(PROMPT, guidance=guidance, **settings)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"states": "http://127.0.0.1:9/v1"}, "only given for a model on a server"),
        ({"kv_dtype": "f8"}, "f8"),
        ({"states": 3}, "states"),
    ],
)
def test_bad_settings_are_named(settings, problem):
    with pytest.raises((ValueError, TypeError), match=problem):
        stackelberg.Policy(**settings)


def test_keys_and_values_in_bf16(policy):
    with stackelberg.Policy(kv_dtype="bf16") as half:
        assert half.generate(PROMPT, max_tokens=6, temperature=0).text == policy.generate(PROMPT, max_tokens=6, temperature=0).text
