"""What the tests of the engine share."""

import json
import subprocess

PROMPT = "How do I say no to a friend?"


def generated(program, folder, prompt, *flags):
    """The answer of `stackelberg generate` and its trace."""
    answers, trace = folder / "answers.jsonl", folder / "trace.jsonl"
    for file in (answers, trace):
        file.unlink(missing_ok=True)
    done = subprocess.run(
        [program, "generate", prompt, "--out", answers, "--trace", trace, *map(str, flags)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in trace.read_text().splitlines()]
    return json.loads(answers.read_text()), steps


def flags(settings):
    """Settings as flags of the command line."""
    names = {"max_tokens": "max-new-tokens"}
    return [f"--{names.get(name, name.replace('_', '-'))}={value}" for name, value in settings.items()]
