"""Guided generation with transformers against the formulas, computed without a cache and without the engine."""

import doctest
import functools
import importlib

import numpy as np
import pytest
import tiny
import torch

from stackelberg._branches import Branches, hidden_states
from stackelberg.transformers import ArgsLogitsProcessor, ValueLogitsProcessor, value_head

K = 6
SETTINGS = {
    "raw": {"rule": "raw", "strength": 0.7},
    "hard": {"rule": "hard", "beta": 0.5, "bound": 1.5},
    "srs": {"rule": "srs", "strength": 0.8, "bound": 3.0, "alpha": 1.5},
}


def threshold(rewards, prior, exponent):
    """The root of F(m) = E[w(m) (r - m)], w = exp(c) where r >= m, else 1, by bisection (Theorem 1)."""
    low, high = rewards.min(), rewards.max()
    for _ in range(200):
        m = (low + high) / 2
        weights = prior * np.where(rewards >= m, np.exp(exponent), 1.0)
        low, high = (m, high) if (weights * (rewards - m)).sum() > 0 else (low, m)
    return low


def scores(logits, rewards, settings):
    """f = l + lambda s of one step."""
    strength = settings.get("strength", 1 / settings.get("beta", 1))
    if settings["rule"] == "raw":
        return logits + strength * rewards
    prior = np.exp(logits - logits.max())
    m = threshold(rewards, prior / prior.sum(), settings["bound"] * strength)
    if settings["rule"] == "hard":
        shaped = np.where(rewards >= m - 1e-9, settings["bound"], 0.0)
    else:
        shaped = settings["bound"] / (1 + np.exp(-settings["alpha"] * (rewards - m)))
    return logits + strength * shaped


def greedy(model, ids, step, most):
    """Decodes one prompt without a cache; `step` gives the scores of the candidates."""
    for _ in range(most):
        with torch.no_grad():
            logits, candidates = model(torch.tensor([ids])).logits[0, -1].double().topk(K)
        ids = [*ids, candidates[int(np.argmax(step(ids, logits.numpy(), candidates.tolist())))].item()]
        if ids[-1] == 1:
            break
    return ids


def by_model(reward):
    """Rewards of whole texts, one after the other."""
    def rewards(ids, candidates):
        with torch.no_grad():
            # Not the forward pass of the whole model: it leaves out a last token that is padding.
            texts = torch.tensor([[*ids, token] for token in candidates])
            states = getattr(reward, reward.base_model_prefix)(texts).last_hidden_state[:, -1]
            return reward.score(states)[:, 0].double().numpy()
    return rewards


def rows(found, prompts):
    """Tokens of each row without padding, up to the end-of-text token."""
    cut = []
    for row, mask in zip(found.tolist(), prompts["attention_mask"].tolist(), strict=True):
        answer = row[len(mask):]
        end = answer.index(1) + 1 if 1 in answer else len(answer)
        cut.append([token for token, shown in zip(row, mask, strict=False) if shown] + answer[:end])
    return cut


def alone(prompts):
    return rows(prompts["input_ids"], prompts)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_branches_are_whole_texts(family, attention):
    model, prompts = tiny.policy(family), tiny.prompts()
    model.set_attn_implementation(attention)
    branches = Branches(model, output_hidden_states=True)
    tokens, shown, alive = prompts["input_ids"], prompts["attention_mask"].bool(), torch.ones(3, dtype=torch.bool)
    for step in range(6):
        branches.follow(tokens, shown, alive)
        assert (branches.chosen is None) == (step == 0)  # nothing is run again
        candidates = torch.randint(3, 50, (3, K), generator=torch.Generator().manual_seed(step))
        found = branches.branch(candidates)
        for row in range(3):
            text = tokens[row][shown[row]].tolist()
            with torch.no_grad():
                whole = model(torch.tensor([[*text, token] for token in candidates[row].tolist()]), output_hidden_states=True)
            torch.testing.assert_close(found.logits[row], whole.logits[:, -1], atol=2e-4, rtol=1e-4)
            torch.testing.assert_close(hidden_states(found)[row], whole.hidden_states[-1][:, -1], atol=1e-5, rtol=1e-4)
        tokens = torch.cat([tokens, candidates[:, [step]]], 1)
        shown = torch.cat([shown, torch.ones(3, 1, dtype=torch.bool)], 1)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_args_with_a_reward_model(family, settings):
    model, reward, prompts = tiny.policy(family), tiny.reward(family), tiny.prompts()
    guide = ArgsLogitsProcessor(reward, candidates=K, **settings)
    found = model.generate(**prompts, logits_processor=[guide], do_sample=False, max_new_tokens=12)
    rewards = by_model(reward)
    expected = [
        greedy(model, ids, lambda ids, logits, candidates: scores(logits, rewards(ids, candidates), settings), 12)
        for ids in alone(prompts)
    ]
    assert rows(found, prompts) == expected
    assert expected != rows(model.generate(**prompts, do_sample=False, max_new_tokens=12), prompts)
    # The same processor again, for the same and for another prompt.
    assert torch.equal(model.generate(**prompts, logits_processor=[guide], do_sample=False, max_new_tokens=12), found)
    one = {name: values[:1] for name, values in prompts.items()}
    again = model.generate(**one, logits_processor=[guide], do_sample=False, max_new_tokens=12)
    assert rows(again, one) == expected[:1]


def test_a_step_costs_one_token_for_each_candidate():
    model, reward, prompts = tiny.policy(), tiny.reward(), tiny.prompts()
    read = []
    reward.model.register_forward_pre_hook(lambda _, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True)
    guide = ArgsLogitsProcessor(reward, candidates=K, rule="raw", strength=1.0)
    model.generate(**prompts, logits_processor=[guide], do_sample=False, max_new_tokens=8, min_new_tokens=8)
    assert read == [(3, 5)] + [(3, K)] * 8


def test_sampling_is_from_the_fused_scores():
    model, reward = tiny.policy(), tiny.reward()
    ids, settings = [5, 6, 7, 8, 9], SETTINGS["srs"]
    guide = ArgsLogitsProcessor(reward, candidates=K, **settings)
    torch.manual_seed(3)
    many = torch.tensor([ids] * 4000)
    options = {"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": 1.0}
    drawn = model.generate(many, logits_processor=[guide], max_new_tokens=1, **options)[:, -1].numpy()
    with torch.no_grad():
        logits, candidates = model(torch.tensor([ids])).logits[0, -1].double().topk(K)
    fused = scores(logits.numpy(), by_model(reward)(ids, candidates.tolist()), settings) / 0.5
    masses = np.exp(fused - fused.max())
    found = np.array([(drawn == token).mean() for token in candidates.tolist()])
    np.testing.assert_allclose(found, masses / masses.sum(), atol=0.03)


def test_a_budget_holds_at_the_temperature():
    model = tiny.policy()
    for temperature in (0.5, 1.0, 2.0):
        guide = ArgsLogitsProcessor(lambda _, answers: [float(ids[-1]) for ids in answers], candidates=K, temperature=temperature)
        assert guide.rule == {"kl_budget": 0.3}
        ids = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            logits = model(ids).logits[:, -1]
        base, candidates = logits[0].double().topk(K)
        fused = guide(ids, logits)[0, candidates].double()
        p, q = (base / temperature).log_softmax(0), (fused / temperature).log_softmax(0)
        assert 0.2 < float((q.exp() * (q - p)).sum()) <= 0.3 + 1e-6


def test_functions_of_tokens_and_of_texts():
    model, prompts, asked = tiny.policy(), tiny.prompts(), []

    def reward(prompts, answers):
        asked.append((prompts, answers))
        return [float(sum(ids) % 7) for ids in answers]

    guide = ArgsLogitsProcessor(reward, candidates=3, rule="raw", strength=2.0, pad_token_id=0, eos_token_id=1)
    found = model.generate(**prompts, logits_processor=[guide], do_sample=False, max_new_tokens=5, min_new_tokens=5)
    assert len(asked) == 5 and asked[0][0] == [ids for ids in alone(prompts) for _ in range(3)]
    assert [len(answer) for answer in asked[-1][1]] == [5] * 9
    assert asked[-1][1][0][:4] == found[0, 5:9].tolist()

    class Tokenizer:
        eos_token_id, pad_token_id = 1, 0

        def batch_decode(self, rows, skip_special_tokens, clean_up_tokenization_spaces):
            assert not clean_up_tokenization_spaces
            return ["".join(f"<{token}>" for token in row if token > 2 or not skip_special_tokens) for row in rows]

    texts = []

    def of_texts(prompts, answers):
        texts.append((prompts, answers))
        return [float(sum(map(int, answer.strip("<>").split("><"))) % 7) if answer else 0.0 for answer in answers]

    guide = ArgsLogitsProcessor(of_texts, tokenizer=Tokenizer(), candidates=3, rule="raw", strength=2.0)
    again = model.generate(**prompts, logits_processor=[guide], do_sample=False, max_new_tokens=5, min_new_tokens=5)
    assert torch.equal(again, found) and texts[0][0][3] == "<11><12><13>"


def test_finished_rows_are_not_scored():
    model, prompts, asked = tiny.policy(), tiny.prompts(), []

    def reward(_, answers):
        asked.append(answers)
        # The first row is to end at once, the others never.
        return [100.0 * (ids[-1] == 1 if len(asked) == 1 and i < 50 else ids[-1] != 1) for i, ids in enumerate(answers)]

    guide = ArgsLogitsProcessor(reward, candidates=50, rule="raw", strength=50.0, eos_token_id=1, pad_token_id=0)
    found = model.generate(**prompts, logits_processor=[guide], do_sample=False, max_new_tokens=4)
    assert [len(answers) for answers in asked] == [150, 100, 100, 100]
    assert found[0, 5:].tolist() == [1, 0, 0, 0]
    assert all(ids[0] != 1 for answers in asked[1:] for ids in answers)


def test_beams_find_their_caches():
    model, reward, prompts = tiny.policy(), tiny.reward(), tiny.prompts()
    options = {"do_sample": False, "max_new_tokens": 8, "num_beams": 3, **prompts}
    cached = ArgsLogitsProcessor(reward, candidates=K, **SETTINGS["raw"])
    whole = ArgsLogitsProcessor(
        lambda prompts, answers: [by_model(reward)([*p, *a[:-1]], a[-1:])[0] for p, a in zip(prompts, answers, strict=True)],
        candidates=K, pad_token_id=0, eos_token_id=1, **SETTINGS["raw"],
    )
    read = []
    hook = reward.model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    found = model.generate(logits_processor=[cached], **options)
    hook.remove()
    assert read[0] == 5 and read.count(5) == 1  # the prompts are read once
    assert torch.equal(found, model.generate(logits_processor=[whole], **options))


def head(width=16, bound=None):
    torch.manual_seed(5)
    layers = torch.nn.Sequential(
        torch.nn.Linear(width, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    )
    with torch.no_grad():
        layers[-1].weight.mul_(20)
    return layers


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_values(family):
    model, prompts, value = tiny.policy(family), tiny.prompts(), head()
    guide = ValueLogitsProcessor(value, model, strength=2.0, candidates=K)

    def step(ids, logits, candidates):
        with torch.no_grad():
            every = model(torch.tensor([ids])).logits[0, -1].double() / 0.7
            log_p = every.log_softmax(0)[candidates].numpy()
            # An end-of-text token has the value of the text before it.
            found = model(torch.tensor([[*ids, token] for token in candidates]), output_hidden_states=True).hidden_states[-1]
            ends = torch.tensor(candidates)[:, None] == 1
            states = torch.where(ends, found[:, -2], found[:, -1])
            return log_p + 2.0 * value(states)[:, 0].double().numpy()

    expected = [greedy(model, ids, step, 12) for ids in alone(prompts)]
    options = {"do_sample": False, "max_new_tokens": 12, "logits_processor": [guide], **prompts}
    assert rows(model.generate(**options), prompts) == expected
    assert rows(model.generate(custom_generate=guide.branch_and_commit, **options), prompts) == expected
    assert expected != rows(model.generate(**prompts, do_sample=False, max_new_tokens=12), prompts)


def test_values_of_beams(monkeypatch):
    model, prompts = tiny.policy(), tiny.prompts()
    options = {"do_sample": False, "max_new_tokens": 8, "num_beams": 3, **prompts}
    found = model.generate(logits_processor=[ValueLogitsProcessor(head(), model, candidates=K)], **options)
    # The same with texts that are read anew in each step.
    monkeypatch.setattr(Branches, "_is_next", lambda *_: False)
    assert torch.equal(found, model.generate(logits_processor=[ValueLogitsProcessor(head(), model, candidates=K)], **options))


def test_branch_and_commit_runs_nothing_twice():
    model, prompts = tiny.policy(), tiny.prompts()
    guide = ValueLogitsProcessor(head(), model, candidates=K)
    read = []
    model.model.register_forward_pre_hook(lambda _, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True)
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "logits_processor": [guide], **prompts}
    model.generate(custom_generate=guide.branch_and_commit, **options)
    assert read == [(3, 5)] + [(3, K)] * 6


def test_branch_and_commit_samples_and_streams():
    model, prompts = tiny.policy(), tiny.prompts()
    guide = ValueLogitsProcessor(head(), model, candidates=K)
    options = {"do_sample": True, "temperature": 0.8, "max_new_tokens": 10, "logits_processor": [guide], **prompts}
    torch.manual_seed(7)
    plain = model.generate(**options)
    torch.manual_seed(7)
    assert torch.equal(model.generate(custom_generate=guide.branch_and_commit, **options), plain)

    class Streamer:
        said, ended = [], False

        def put(self, tokens):
            self.said.append(tokens)

        def end(self):
            self.ended = True

    streamer = Streamer()
    one = {name: values[:1] for name, values in prompts.items()}
    options = {"do_sample": False, "max_new_tokens": 4, "logits_processor": [guide], **one}
    found = model.generate(custom_generate=functools.partial(guide.branch_and_commit, streamer=streamer), **options)
    assert [int(tokens) for tokens in streamer.said] == found[0, 5:].tolist() and streamer.ended
    with pytest.raises(ValueError, match="does not support num_beams"):
        model.generate(custom_generate=guide.branch_and_commit, num_beams=2, **options)
    with pytest.raises(ValueError, match="pass the processor as logits_processor"):
        model.generate(**one, custom_generate=guide.branch_and_commit)


def test_files_of_value_heads(tmp_path):
    from safetensors.torch import save_file

    layers, file = head(), tmp_path / "value.safetensors"
    save_file(layers.state_dict(), file, {"format": "stackelberg-value", "bound": "0.5"})
    hidden = torch.randn(9, 16)
    with torch.no_grad():
        torch.testing.assert_close(value_head(file, 16)(hidden), layers(hidden)[:, 0].clamp(0, 0.5))
    with pytest.raises(ValueError, match="reads hidden states of width 16, the model's have 8"):
        value_head(file, 8)
    save_file(layers.state_dict(), file, {"format": "stackelberg-head"})
    with pytest.raises(ValueError, match="is not a value head"):
        value_head(file, 16)


def test_examples():
    result = doctest.testmod(importlib.import_module("stackelberg.transformers"))
    assert result.failed == 0 and result.attempted >= 3


def test_errors():
    function = lambda prompts, answers: [0.0] * len(answers)  # noqa: E731
    for wrong, what in [
        ({"rule": "best"}, "unknown"), ({"bound": -1.0}, "bound"), ({"candidates": 0}, "candidates is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"), ({"strength": 1.0, "beta": 1.0}, "beta"), ({"candidates": 9999}, "4096"),
    ]:
        with pytest.raises(ValueError, match=what):
            ArgsLogitsProcessor(function, **wrong)
    with pytest.raises(TypeError, match="unknown setting 'shaping'"):
        ArgsLogitsProcessor(function, shaping="srs")
    with pytest.raises(TypeError, match="must be a function or a model"):
        ArgsLogitsProcessor("sentiment")
    with pytest.raises(ValueError, match="choose one of them"):
        ArgsLogitsProcessor(tiny.reward(labels=3))
    with pytest.raises(ValueError, match="no linear layer"):
        ArgsLogitsProcessor(tiny.policy())
    model = tiny.policy()
    with pytest.raises(ValueError, match="returned 3 rewards for 10 answers"):
        model.generate(torch.tensor([[5]]), logits_processor=[ArgsLogitsProcessor(lambda p, a: [0.0] * 3)], max_new_tokens=1)
    with pytest.raises(ValueError, match="is NaN"):
        model.generate(torch.tensor([[5]]), logits_processor=[ArgsLogitsProcessor(lambda p, a: [np.nan] * len(a))], max_new_tokens=1)
    with pytest.raises(ValueError, match="policy has token"):
        few = ArgsLogitsProcessor(tiny.reward())
        few(torch.tensor([[49]]), torch.arange(60.0)[None])
