"""The openai package against a server: openai_client.py ADDRESS KEY

The server has the rewards `kind` and `safe`. Every answer is asked for in several ways, which must agree."""

import asyncio
import sys

import openai

ADDRESS, KEY = sys.argv[1:]
CLIENT = openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key=KEY, max_retries=0, timeout=120)
MESSAGES = [{"role": "user", "content": "How do I say no to a friend? \U0001f600"}]
GUIDANCE = {"guidance": {"method": "args", "reward": "kind", "strength": 3}}
ASKED = {"model": "smollm2-135m", "messages": MESSAGES, "max_tokens": 24, "seed": 5}


def check(holds, what):
    if not holds:
        raise SystemExit(f"openai {openai.__version__}: {what}")


def chats():
    """Whole, streamed and asynchronous answers are the same."""
    for extra in ({}, GUIDANCE, {"guidance": {"method": "best-of-n", "reward": "kind*0.5+safe*0.5", "samples": 4}}):
        whole = CLIENT.chat.completions.create(**ASKED, extra_body=extra)
        text = whole.choices[0].message.content
        check(text and whole.choices[0].finish_reason in ("stop", "length"), f"no answer: {whole}")
        check(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, f"usage: {whole.usage}")
        stream = CLIENT.chat.completions.create(**ASKED, extra_body=extra, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        joined = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        check(joined == text, f"streamed {joined!r}, whole {text!r}")
        check(not chunks[-1].choices and chunks[-1].usage == whole.usage, f"the last chunk is {chunks[-1]}")
        if extra:
            guidance = whole.choices[0].guidance
            check(guidance["method"] == extra["guidance"]["method"] and isinstance(guidance["reward"], float), f"guidance: {guidance}")
    alone = CLIENT.chat.completions.create(**ASKED, extra_body=GUIDANCE).choices[0].message.content
    together = asyncio.run(many(16))
    check(together == [alone] * 16, "16 answers at once differ from one alone")


async def many(count):
    async with openai.AsyncOpenAI(base_url=f"{ADDRESS}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        asked = [client.chat.completions.create(**ASKED, extra_body=GUIDANCE) for _ in range(count)]
        answers = await asyncio.gather(*asked)
        stream = await client.chat.completions.create(**ASKED, extra_body=GUIDANCE, stream=True)
        joined = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        check(joined == answers[0].choices[0].message.content, "an asynchronous stream differs")
        return [answer.choices[0].message.content for answer in answers]


def completions():
    """Texts, lists, ids, several choices, log-probabilities, stops."""
    common = {"model": "smollm2-135m", "max_tokens": 8, "seed": 2}
    several = CLIENT.completions.create(**common, prompt=["Once upon", "The sea"], n=2)
    check([choice.index for choice in several.choices] == [0, 1, 2, 3], f"choices: {several.choices}")
    check(several.choices[0].text != several.choices[1].text, "two choices of one prompt are the same")
    first = CLIENT.completions.create(**common, prompt="Once upon", logprobs=2, temperature=0)
    logprobs = first.choices[0].logprobs
    check("".join(logprobs.tokens) == first.choices[0].text, f"tokens {logprobs.tokens} of {first.choices[0].text!r}")
    check(all(value <= 0 for value in logprobs.token_logprobs), f"log-probabilities: {logprobs.token_logprobs}")
    echo = CLIENT.completions.create(model="smollm2-135m", prompt="The sea is", max_tokens=0, echo=True, logprobs=1)
    check(echo.choices[0].text == "The sea is" and echo.choices[0].logprobs.token_logprobs[0] is None, f"echo: {echo}")
    text = first.choices[0].text
    stop = text[len(text) // 2 :][:3]
    stopped = CLIENT.completions.create(**common, prompt="Once upon", temperature=0, stop=[stop]).choices[0]
    check(stopped.text == text[: text.index(stop)] and stopped.finish_reason == "stop", f"stopped at {stop!r}: {stopped}")
    chat = CLIENT.chat.completions.create(**ASKED | {"max_tokens": 3}, logprobs=True, top_logprobs=4, temperature=0)
    for entry in chat.choices[0].logprobs.content:
        likeliest = [top.logprob for top in entry.top_logprobs]
        check(len(likeliest) == 4 and entry.logprob == max(likeliest), f"greedy, but {entry}")


def errors():
    """Errors are those of the package, with the field."""
    for field, asked in {
        "guidance.strength": {"extra_body": {"guidance": {"method": "args", "reward": "kind", "strength": "much"}}},
        "guidance.reward": {"extra_body": {"guidance": {"reward": "unkind"}}},
        "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
        "max_tokens": {"max_tokens": 2**63},
        "temperature": {"temperature": -1},
    }.items():
        try:
            CLIENT.chat.completions.create(**ASKED | asked)
        except openai.BadRequestError as error:
            check(error.param == field, f"{error.param} instead of {field}: {error}")
        else:
            check(False, f"no error for {field}")
    try:
        CLIENT.chat.completions.create(**ASKED | {"model": "another"})
        check(False, "an unknown model answers")
    except openai.NotFoundError:
        pass
    try:
        openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key="wrong", max_retries=0).models.list()
        check(False, "a wrong key is right")
    except openai.AuthenticationError:
        pass


check([model.id for model in CLIENT.models.list()] == ["smollm2-135m"], "another list of models")
chats()
completions()
errors()
print(f"openai {openai.__version__}: all holds")
