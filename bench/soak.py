#!/usr/bin/env python3
"""Many clients, good and bad ones, at a server with a tiny model: bench/soak.py STACKELBERG [SECONDS [CONNECTIONS]]

Clients ask, leave in the middle, read slowly, or send half of a request. Every answer that is finished must equal the answer to
the same request alone; at the end nothing may run or wait, and the server's memory must be back within 5 percent of what it was
after a shorter run of the same kind. By default 600 seconds and 1000 connections. Needs nothing but Python's standard library.
Ends with 1 and one line that says what is wrong.
"""

import asyncio
import collections
import json
import pathlib
import random
import re
import resource
import sys
import tempfile
import time
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / ".ci"))
from server import KEY, Failed, server  # noqa: E402
from tiny_model import tiny  # noqa: E402

WARM_UP = 60  # seconds
QUIET = 60  # seconds within which nothing may run any more
MEMORY = 1.05
KINDS = [
    {"prompt": "w7 w8 w9", "max_tokens": 30, "ignore_eos": True, "seed": 1},
    {"prompt": "w7 w8", "max_tokens": 20, "n": 3, "seed": 2},
    {"prompt": ["w11", "w12 w13"], "max_tokens": 25, "ignore_eos": True, "seed": 3},
    {"prompt": "w10", "max_tokens": 30, "ignore_eos": True, "seed": 4, "guidance": {"reward": "head", "method": "args"}},
    {"prompt": "w14", "max_tokens": 20, "ignore_eos": True, "seed": 5, "guidance": {"reward": "head", "method": "best-of-n", "samples": 4}},
    {"prompt": "w15", "max_tokens": 24, "seed": 6, "guidance": {"reward": "head", "method": "blockwise", "samples": 4, "block": 8}},
    {"prompt": "w16", "max_tokens": 24, "seed": 7, "guidance": {"reward": "head", "method": "particles", "samples": 4, "block": 8}},
]
# What a client does, and how often in a hundred.
MANNERS = {"good": 60, "slow": 10, "leaves": 15, "half": 10, "silent": 5}


def request(body, host):
    data = json.dumps(body).encode()
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n")
    return head.encode() + data


def texts(status, content, stream):
    """The texts of the choices of a finished answer."""
    if not stream:
        return [choice["text"] for choice in json.loads(content)["choices"]]
    found = collections.defaultdict(str)
    events = [event.removeprefix("data: ") for event in content.split("\n\n") if event.startswith("data: ")]
    if events[-1:] != ["[DONE]"]:
        raise Failed(f"a stream without an end: {content[-200:]!r}")
    for event in events[:-1]:
        for choice in json.loads(event).get("choices", []):
            found[choice["index"]] += choice["text"]
    return [found[index] for index in sorted(found)]


def unchunked(body):
    """The content of a body in chunks."""
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(body[:length])
        body = body[length + 2 :]
        if not length:
            break
    return b"".join(parts)


def parsed(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if b"transfer-encoding: chunked" in head.lower():
        body = unchunked(body)
    return status, body.decode()


async def client(address, expected, end, counts, dice):
    host, port = address
    while time.monotonic() < end:
        manner = dice.choices(list(MANNERS), MANNERS.values())[0]
        kind = dice.randrange(len(KINDS))
        stream = dice.random() < 0.5
        sent = request(KINDS[kind] | {"stream": stream}, f"{host}:{port}")
        try:
            reader, writer = await asyncio.open_connection(host, port, limit=4096 if manner == "slow" else 65536)
        except OSError:
            counts["not connected"] += 1
            await asyncio.sleep(0.1)
            continue
        try:
            if manner == "silent":
                writer.write(sent[: dice.randrange(1, 60)])
                await asyncio.sleep(dice.uniform(0, 5))
            elif manner == "half":
                writer.write(sent[: dice.randrange(len(sent) // 2, len(sent))])
                await asyncio.sleep(dice.uniform(0, 2))
            else:
                writer.write(sent)
                await writer.drain()
                if manner == "leaves":
                    await asyncio.wait_for(reader.read(dice.randrange(1, 2000)), dice.uniform(0.001, 1))
                else:
                    answer = await whole(reader, slow=manner == "slow")
                    counts[check(answer, expected[kind], stream)] += 1
                    continue
            counts[manner] += 1
        except asyncio.TimeoutError:
            counts[manner] += 1
        except ConnectionError:
            counts["connection lost"] += 1
        finally:
            writer.close()


async def whole(reader, slow):
    answer = b""
    while part := await asyncio.wait_for(reader.read(256 if slow else 65536), 120):
        answer += part
        if slow:
            await asyncio.sleep(0.02)
    return answer


def check(answer, expected, stream):
    status, content = parsed(answer)
    if status == 429:
        return "queue full"
    if status != 200:
        raise Failed(f"status {status}: {content[:200]}")
    if texts(status, content, stream) != expected:
        raise Failed(f"another answer than alone: {texts(status, content, stream)} instead of {expected}")
    return "answers"


async def crowd(address, expected, seconds, connections, seed):
    counts = collections.Counter()
    end = time.monotonic() + seconds
    clients = [client(address, expected, end, counts, random.Random(seed * 100_000 + i)) for i in range(connections)]
    await asyncio.gather(*clients)
    return counts


def metric(base, name):
    asked = urllib.request.Request(f"{base}/metrics", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.M)
    return float(found[1]) if found else 0.0


def quiet(base, process):
    """Waits until nothing runs; gives the memory of the server in MB."""
    end = time.monotonic() + QUIET
    while metric(base, "stackelberg_running") + metric(base, "stackelberg_waiting") > 0:
        if time.monotonic() > end:
            raise Failed(f"something still runs {QUIET} s after the last client left")
        time.sleep(0.2)
    time.sleep(3)
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def main():
    if not 2 <= len(sys.argv) <= 4:
        print(__doc__.strip().splitlines()[0], file=sys.stderr)
        return 2
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 600
    connections = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        with tempfile.TemporaryDirectory() as folder:
            model, head = tiny(pathlib.Path(folder))
            with server(sys.argv[1], "--model", model, "--reward", f"head={head}") as (base, process):
                place = urllib.parse.urlsplit(base)
                address = (place.hostname, place.port)
                expected = []
                for kind in KINDS:
                    asked = urllib.request.Request(f"{base}/v1/completions", json.dumps(kind).encode(), {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"})
                    with urllib.request.urlopen(asked, timeout=60) as answer:
                        expected.append(texts(200, answer.read().decode(), stream=False))
                warm = min(WARM_UP, seconds)
                asyncio.run(crowd(address, expected, warm, connections, 1))
                before = quiet(base, process)
                print(f"after {warm:.0f} s: {before:.1f} MB", flush=True)
                counts = asyncio.run(crowd(address, expected, seconds, connections, 2))
                after = quiet(base, process)
                print(f"after {seconds:.0f} s more with {connections} connections: {after:.1f} MB; " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
                if after > before * MEMORY:
                    raise Failed(f"memory grew from {before:.1f} to {after:.1f} MB, the bar is {MEMORY}")
                if not counts["answers"]:
                    raise Failed("no answer was finished")
    except (Failed, OSError, ValueError) as problem:
        print(f"soak: {problem}", file=sys.stderr)
        return 1
    print("soak: all holds")
    return 0


sys.exit(main())
