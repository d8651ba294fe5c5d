"""What a script without Stackelberg would do: engines_peer.py ADDRESS MODEL TOKENIZER REWARD < PROMPTS.json

ARGS as a loop of HTTP calls, 16 prompts at a time in threads; the same calls to the policy again without anything between them, which is
what the server itself can do; and best-of-8 by the server's own `n` with one batch of scores. Prints tokens and seconds as JSON.
"""

import concurrent.futures
import json
import sys
import time

import httpx
from transformers import AutoTokenizer

TOKENS, CANDIDATES, SAMPLES, STRENGTH, AT_ONCE = 24, 10, 8, 2.0, 16


def main():
    address, model, folder, reward = sys.argv[1:]
    prompts = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    client = httpx.Client(timeout=300, limits=httpx.Limits(max_connections=64))

    def post(url, body):
        answer = client.post(url, json=body)
        answer.raise_for_status()
        return answer.json()

    def scores(texts):
        found = post(reward, {"input": texts, "use_activation": False, "add_special_tokens": False})["data"]
        return [row["probs"][0] for row in sorted(found, key=lambda row: row["index"])]

    def ids(prompt):
        text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        return text, tokenizer(text, add_special_tokens=False)["input_ids"]

    def likeliest(tokens):
        found = post(f"{address}/completions", {"model": model, "prompt": tokens, "max_tokens": 1, "temperature": 0,
                                                "logprobs": CANDIDATES, "return_tokens_as_token_ids": True})
        top = found["choices"][0]["logprobs"]["top_logprobs"][0]
        return [(int(name.split(":")[1]), value) for name, value in top.items()]

    def args(prompt):
        text, tokens = ids(prompt)
        answer = []
        for _ in range(TOKENS):
            likely = likeliest(tokens + answer)
            found = scores([text + tokenizer.decode([*answer, token]) for token, _ in likely])
            token = max(zip(likely, found), key=lambda pair: pair[0][1] + STRENGTH * pair[1])[0][0]
            answer.append(token)
            if token == tokenizer.eos_token_id:
                break
        return tokens, answer

    def bare(found):
        tokens, answer = found
        for n in range(len(answer)):
            likeliest(tokens + answer[:n])

    def best(prompt):
        text, tokens = ids(prompt)
        found = post(f"{address}/completions", {"model": model, "prompt": tokens, "max_tokens": TOKENS, "temperature": 0.7,
                                                "top_p": 0.9, "n": SAMPLES, "seed": 1})
        answers = [choice["text"] for choice in found["choices"]]
        found = scores([text + answer for answer in answers])
        return max(zip(found, answers))

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(args, prompts))
    args_seconds = time.monotonic() - began
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(bare, answers))
    bare_seconds = time.monotonic() - began
    tokens = sum(len(answer) for _, answer in answers)
    began = time.monotonic()
    for prompt in prompts:
        best(prompt)
    best_seconds = time.monotonic() - began
    print(json.dumps({"args_tokens": tokens, "args_seconds": args_seconds, "bare_seconds": bare_seconds, "best_seconds": best_seconds}))


main()
