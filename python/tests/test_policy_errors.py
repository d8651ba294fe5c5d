"""Errors of the engine, in the words of the command line."""

import dataclasses
import subprocess

import pytest
from engines import PROMPT, flags

import stackelberg
from stackelberg import Guidance


@pytest.mark.parametrize(
    ("guidance", "sampling"),
    [
        ({"reward": "sentimental"}, {}),
        ({"reward": "sentiment*"}, {}),
        ({"reward": "missing/reward.safetensors"}, {}),
        ({"reward": "sentiment", "strength": -1.0}, {}),
        ({"reward": "sentiment", "bound": -2.0}, {}),
        ({"reward": "sentiment", "kl_budget": -2.0}, {}),
        ({"method": "base"}, {"temperature": -1.0}),
        ({"method": "base"}, {"temperature": 1.0, "top_p": 1.5}),
        ({"method": "best-of-n", "reward": "sentiment", "token_price": -1.0}, {}),
    ],
    ids=str,
)
def test_the_words_are_those_of_the_command_line(program, policy, guidance, sampling):
    said = subprocess.run([program, "generate", PROMPT, *flags(guidance | sampling)], capture_output=True, text=True)
    with pytest.raises(ValueError) as found:
        policy.generate(PROMPT, guidance=guidance, **sampling)
    assert said.returncode != 0 and said.stderr.strip().endswith(str(found.value))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda policy: stackelberg.Policy("smollm3"), "unknown name 'smollm3': known are "),
        (lambda policy: stackelberg.Policy("missing/model"), "missing/model does not exist"),
        (lambda policy: stackelberg.Policy(dtype="f8"), "unknown dtype 'f8': known are f32, bf16, int8, q4 and native"),
        (lambda policy: stackelberg.Policy(threads=0), "threads is 0: it must be one or more"),
        (lambda policy: stackelberg.Policy(batch_size=0), "batch_size is 0: it must be a whole number between 1 and 4096"),
        (lambda policy: stackelberg.Policy(rewards={"a b": "harmless"}), 'the reward "a b": a name has letters, '),
        (lambda policy: stackelberg.Policy(rewards={"kind": "kindness"}), "unknown reward 'kindness': known are harmless, "),
        (lambda policy: stackelberg.Reward("kindness", policy), "unknown reward 'kindness': known are harmless, "),
        (lambda policy: policy.generate(PROMPT, guidance={"strenght": 1.0}), "guidance.strenght: unknown; known are alpha, "),
        (lambda policy: policy.generate(PROMPT, guidance={"method": "magic"}), "unknown method 'magic': known are base, args, "),
        (lambda policy: policy.generate(PROMPT, guidance={"temperature": 1.0}), "give it as temperature of the request"),
        (lambda policy: policy.generate(PROMPT, guidance={"method": "cd"}), "the method cd needs a value head; none is loaded"),
        (
            lambda policy: policy.generate(PROMPT, guidance=Guidance(method="base", strength=1.0)),
            "strength has no effect with method base: leave it out",
        ),
        (
            lambda policy: policy.generate(PROMPT, guidance={"reward": "harmless", "bound": 1.0, "kl_budget": 1.0}),
            "guidance.bound: it has no effect with kl_budget",
        ),
        (
            lambda policy: policy.generate(PROMPT, guidance={"reward": "harmless", "beta": 1.0, "strength": 1.0}),
            "guidance.beta: it is 1/strength: give one of them",
        ),
        (
            lambda policy: policy.generate(PROMPT, guidance={"reward": "harmless", "method": "best-of-n"}, temperature=0.0),
            "temperature is 0: all samples that best-of-n chooses from would be the same",
        ),
        (lambda policy: policy.generate(PROMPT, temperature=float("nan")), "temperature is NaN: it must be a finite number"),
        (lambda policy: policy.generate(PROMPT, max_tokens=0), "max-new-tokens is 0: it must be "),
        (lambda policy: policy.generate(PROMPT, n=0), "n is 0: it must be one or more"),
        (lambda policy: policy.generate(PROMPT, prompt_format="html"), "unknown text format 'html': known are raw and chat"),
        (lambda policy: policy.generate(" "), "the prompt is empty"),
        (lambda policy: policy.generate([PROMPT, "word " * 9000]), "tokens do not fit the model's context of 8192"),
        (lambda policy: policy.generate([{"role": "user"}]), "a message must have role and content: content is missing"),
        (lambda policy: stackelberg.Reward("harmless", policy).score([PROMPT], []), "prompts has 1 entries but there are 0 answers"),
        (lambda policy: stackelberg.Reward("harmless", policy).score(None, [" "]), "an empty text has no reward"),
    ],
)
def test_values(policy, call, words):
    with pytest.raises(ValueError) as found:
        call(policy)
    assert type(found.value) is ValueError and words in str(found.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda policy: policy.generate(3),
        lambda policy: policy.generate([3]),
        lambda policy: policy.generate({"role": "user", "content": PROMPT}),
        lambda policy: policy.generate(PROMPT, guidance="args"),
        lambda policy: policy.generate(PROMPT, guidance={"reward": 3}),
        lambda policy: policy.generate(PROMPT, guidance={"reward": "harmless", "bound": "2"}),
        lambda policy: policy.generate(PROMPT, temperature="hot"),
        lambda policy: policy.generate(PROMPT, max_tokens=1.5),
        lambda policy: policy.generate(PROMPT, n=1.5),
        lambda policy: policy.generate(PROMPT, no_such_setting=1),
        lambda policy: policy.stream([PROMPT, PROMPT]),
        lambda policy: stackelberg.Guidance(no_such_field=1),
        lambda policy: stackelberg.Policy(threads="2"),
        lambda policy: stackelberg.Policy(rewards={"kind": 3}),
        lambda policy: stackelberg.Reward("harmless", policy).score("a", "b"),
        lambda policy: stackelberg.Reward("harmless", policy).score(None, [3]),
    ],
)
def test_types(policy, call):
    with pytest.raises(TypeError):
        call(policy)


def test_guidance_has_the_fields_of_requests(policy):
    with pytest.raises(ValueError) as found:
        policy.generate(PROMPT, guidance={"no_such_field": 1})
    known = str(found.value).split("known are ")[1].split(", ")
    assert {field.name for field in dataclasses.fields(Guidance)} == set(known) - {"extends"}
