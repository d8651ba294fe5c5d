"""Real runs of GRPO and RLOO on a tiny model: what the trainer computes from is shaped, group by group."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import stackelberg
from stackelberg.trl import ShapedRewards

SHAPING = {"rule": "srs", "bound": 3.0, "beta": 0.5}
GROUP = 4


class ShapedGRPO(ShapedRewards, GRPOTrainer):
    pass


class ShapedRLOO(ShapedRewards, RLOOTrainer):
    pass


def words(prompts, completions, **_):
    """The sum of the words' numbers; None for completions that begin with an even one."""
    numbers = [[int(word[1:]) for word in text.split() if word.startswith("w")] for text in completions]
    return [None if row and row[0] % 2 == 0 else sum(row) / 100 for row in numbers]


async def length(prompts, completions, **_):
    return [float(len(text.split())) for text in completions]


def trainer(kind, folder, shaping=SHAPING, **fields):
    common = {
        "output_dir": str(folder), "per_device_train_batch_size": 2 * GROUP, "num_generations": GROUP, "max_completion_length": 6,
        "max_steps": 5, "learning_rate": 1e-3, "report_to": "none", "use_cpu": True, "logging_steps": 1, "save_strategy": "no",
        "reward_weights": [1.0, 0.5], "seed": 1,
    }
    config, own = (GRPOConfig, {"scale_rewards": "none"}) if kind is ShapedGRPO else (RLOOConfig, {})
    prompts = Dataset.from_dict({"prompt": [f"w{i} w{i + 1} w{i + 2}" for i in range(5, 25)]})
    # RLOO loads its reference model from a folder.
    if not (folder / "model").is_dir():
        tiny.policy().save_pretrained(folder / "model")
    return kind(
        model=str(folder / "model"), reward_funcs=[words, length], args=config(**common | own | fields), train_dataset=prompts,
        processing_class=tiny.tokenizer(), shaping=shaping,
    )


@pytest.mark.parametrize("kind", [ShapedGRPO, ShapedRLOO])
def test_training(kind, tmp_path):
    found, seen = trainer(kind, tmp_path), []
    before = {name: weights.clone() for name, weights in found.model.named_parameters()}
    calculate = found._calculate_rewards

    def watched(*args, **kwargs):
        seen.append(calculate(*args, **kwargs))
        return seen[-1]

    found._calculate_rewards = watched
    found.train()
    assert len(seen) == 5 and any(not torch.equal(before[name], weights) for name, weights in found.model.named_parameters())
    for rewards in seen:
        first, second, shaped = rewards.double().numpy().T
        total = np.nan_to_num(first) + 0.5 * second
        expected = stackelberg.shape(total.reshape(-1, GROUP), **SHAPING)
        np.testing.assert_allclose(shaped.reshape(-1, GROUP), expected.shaped, rtol=1e-5)
    logs = [entry for entry in found.state.log_history if "reward" in entry]
    assert len(logs) == 5
    for entry, rewards in zip(logs, seen, strict=True):
        # The log has the rewards of the functions as they are, and the shaped ones as the reward.
        assert entry["rewards/length/mean"] == pytest.approx(float(rewards[:, 1].mean()), rel=1e-5)
        assert entry["reward"] == pytest.approx(float(rewards[:, 2].mean()), rel=1e-5)
        total = np.nan_to_num(rewards[:, 0].double().numpy()) + 0.5 * rewards[:, 1].double().numpy()
        expected = stackelberg.shape(total.reshape(-1, GROUP), **SHAPING)
        assert entry["shaping/threshold"] == pytest.approx(expected.threshold.mean(), rel=1e-5)
        assert entry["shaping/kl"] == pytest.approx(expected.kl.shaped.mean(), rel=1e-4)
    assert any(np.isnan(rewards[:, 0].numpy()).any() for rewards in seen)


def test_advantages_are_those_of_the_shaped_rewards(tmp_path):
    """GRPO without scaling: the shaped rewards less their group's mean; 0 where no function gave a reward."""
    found = trainer(ShapedGRPO, tmp_path, reward_weights=[1.0, 0.0], max_steps=1)
    found.reward_funcs[1] = lambda prompts, completions, **_: [None] * len(completions)
    seen = []
    generate, calculate = found._generate_and_score_completions, found._calculate_rewards
    found._calculate_rewards = lambda *args: seen.append(calculate(*args)) or seen[-1]
    found._generate_and_score_completions = lambda inputs: seen.append(generate(inputs)) or seen[-1]
    found.train()
    rewards, output = seen[0][:, 2].numpy().reshape(-1, GROUP), seen[1]
    expected = np.nan_to_num(rewards - np.nanmean(rewards, axis=1, keepdims=True))
    assert np.isnan(rewards).any() and not np.isnan(rewards).all()
    np.testing.assert_allclose(output["advantages"].numpy().reshape(-1, GROUP), expected, atol=1e-6)


def test_what_cancels_the_bound_is_warned_of(tmp_path):
    for scale in ("group", "batch"):
        with pytest.warns(UserWarning, match="the bound only moves the threshold: use scale_rewards='none'"):
            trainer(ShapedGRPO, tmp_path, scale_rewards=scale)
    with pytest.warns(UserWarning, match="use normalize_advantages=False"):
        trainer(ShapedRLOO, tmp_path, normalize_advantages=True)
    with pytest.raises(ValueError, match="multi_objective_aggregation must be 'sum_then_normalize'"):
        trainer(ShapedGRPO, tmp_path, multi_objective_aggregation="normalize_then_sum")
    with pytest.raises(TypeError, match="unknown setting 'shaping': known are alpha, "):
        trainer(ShapedGRPO, tmp_path, shaping={"shaping": "srs"})


def test_a_group_in_two_processes(tmp_path):
    """Each process has two of the four completions of a prompt: m* is that of all four, and None of either has no part in it."""
    tiny.policy().save_pretrained(tmp_path / "model")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.count("groups are whole") == 2


def one_of_two(folder):
    """A process of that test."""
    found = trainer(ShapedGRPO, folder, per_device_train_batch_size=GROUP // 2, ddp_backend="gloo", max_steps=3)
    calculate, seen = found._calculate_rewards, []

    def watched(inputs, prompts, *args):
        seen.append((len(prompts), calculate(inputs, prompts, *args).double().numpy()))
        return torch.tensor(seen[-1][1], dtype=torch.float32)

    found._calculate_rewards = watched
    found.train()
    assert found.accelerator.num_processes == 2 and len(seen) == 3
    for local, rewards in seen:
        assert local == GROUP // 2 and len(rewards) == GROUP
        total = np.nan_to_num(rewards[:, 0]) + 0.5 * rewards[:, 1]
        np.testing.assert_allclose(rewards[:, 2], stackelberg.shape(total, **SHAPING).shaped, rtol=1e-5)
    print("groups are whole", flush=True)


if __name__ == "__main__":
    one_of_two(pathlib.Path(sys.argv[1]))
