"""Compares the speed of Stackelberg, llama.cpp and Hugging Face transformers with the same weights on one machine.
Writes the raw figures to bench/runs/. Libraries that are not installed are skipped with a message. In a virtual
environment:

    CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python llama-cpp-python
    pip install numpy gguf accelerate torch==2.6.0 transformers==4.57.6
    python bench/peers.py [ROUNDS [MODEL.gguf [LENGTH]]]

With a file, ours and llama.cpp read it as it is, and nothing else is compared. With a length, the steps are behind that many tokens
instead of 150, our keys and values are in f32 and in bf16, those of llama.cpp in f16 (its default), and nothing else is
measured. Without a file, the model is the one in our cache
(`stackelberg generate Hi` downloads it), as BF16, as Q8_0, and as it is (Q4_1, our
dtype native). The measurements are those of `stackelberg bench --help`: steps after 150 tokens with the logits of one
token, and answers of 128 tokens to the same chat prompts, prefill included. For llama.cpp, a branch is k sequences over
one shared prefix in one batch; the faster of its two attention kernels counts, separately for each figure. The paper's
Python reference is reimplemented from its description, in bfloat16: an ARGS step runs the reward model over k whole
sequences, and a CD step runs the policy over k copies of its cache and then runs the chosen token again.
"""

import contextlib
import datetime
import glob
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = f"{ROOT}/target/release/stackelberg"
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
MODEL = f"{CACHE}/stackelberg/**/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "Bread is flour, water, salt and yeast; the rest is time and warmth. " * 10
CHAT = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n")
PROMPTS = ["How do I bake bread at home?", "Tell me about the moon.", "What should I say to a sad friend?"]
PEERS = {"llama.cpp": ("llama_cpp_python", "gguf", "numpy"),
         "transformers": ("torch", "transformers", "accelerate", "gguf")}
PREFIX, TOKENS, K = 150, 128, 10
ROWS = {
    "prefill_ms": "prefill, ms", "token_ms": "one token, ms", "branch_ms.10": "10 tokens ahead, ms",
    "branch_ms.40": "40 tokens ahead, ms", "branch_all_ms.10": "10 ahead, logits of all, ms",
    "branch_all_ms.40": "40 ahead, logits of all, ms", "base_tokens_per_s": "greedy, tokens/s",
    "args_model_tokens_per_s": "ARGS, reward model, tokens/s", "cd_tokens_per_s": "CD, tokens/s",
    "load_ms": "load, ms", "peak_rss_mb": "peak memory, MB",
}


def timed(work, repetitions, warm=3):
    """Quartiles of the milliseconds that `work` returns."""
    for _ in range(warm):
        work()
    return statistics.quantiles((work() for _ in range(repetitions)), n=4)


def report(steps, **figures):
    """One line of JSON under the names of `stackelberg bench`: medians, and the quartiles as `spread`."""
    medians = {name: quartiles[1] for name, quartiles in steps.items()}
    spread = {name: [low, high] for name, (low, _, high) in steps.items()}
    print(json.dumps(medians | figures | {"spread": spread}))


def measure_llama(file, threads, length=PREFIX):
    import llama_cpp as llama
    import numpy

    began = time.perf_counter()
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(file.encode(), llama.llama_model_default_params())
    settings = llama.llama_context_default_params()
    length = int(length)
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = length + 362, 512, 512, 41
    settings.n_threads = settings.n_threads_batch = int(threads)
    settings.kv_unified = True  # sequences share the cells of their common prefix
    vocab = llama.llama_model_get_vocab(model)
    size = llama.llama_vocab_n_tokens(vocab)

    def tokens_of(text):
        found = (llama.llama_token * 512)()
        return found[:llama.llama_tokenize(vocab, text.encode(), len(text), found, 512, False, True)]

    text = tokens_of(TEXT)
    prefix, prompts = (text * (length // len(text) + 1))[:length], [tokens_of(CHAT.format(prompt)) for prompt in PROMPTS]
    batch = llama.llama_batch_init(512, 0, 1)

    def forward(tokens, position, wanted, spread=False):
        """Milliseconds. `spread` puts each token at `position` of its own sequence; otherwise all tokens are in sequence 0."""
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, position if spread else position + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, i + 1 if spread else 0
            batch.logits[i] = i in wanted
        start = time.perf_counter()
        assert llama.llama_decode(context, batch) == 0
        llama.llama_synchronize(context)
        return (time.perf_counter() - start) * 1e3

    def prefill():
        llama.llama_memory_clear(memory, False)
        return sum(forward(prefix[at:at + 512], at, [min(512, length - at) - 1]) for at in range(0, length, 512))

    def ahead(k, wanted):
        took = forward(prefix[:k], length, wanted, spread=True)
        for sequence in range(1, k + 1):
            llama.llama_memory_seq_rm(memory, sequence, length, -1)
        return took

    def token():
        took = forward(prefix[:1], length, [0])
        llama.llama_memory_seq_rm(memory, 0, length, -1)
        return took

    def likeliest():
        return int(numpy.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (size,)).argmax())

    def answer(prompt):
        llama.llama_memory_clear(memory, False)
        forward(prompt, 0, [len(prompt) - 1])
        tokens = [likeliest()]
        while len(tokens) < TOKENS:
            forward(tokens[-1:], len(prompt) + len(tokens) - 1, [0])
            tokens.append(likeliest())
        return tokens

    # Behind a long text, a step takes up to a second.
    far = length != PREFIX
    found, rates, answers, loaded, peak = [], [0], [[]], None, None
    for settings.flash_attn_type in (1, 0):
        context = llama.llama_init_from_model(model, settings)
        memory = llama.llama_get_memory(context)
        loaded = loaded or time.perf_counter()
        answer(prompts[0])
        peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        start = time.perf_counter()
        if not far:
            answers = [answer(prompt) for prompt in prompts]
            rates.append(len(prompts) * TOKENS / (time.perf_counter() - start))
        steps = {"prefill_ms": [prefill()] * 3 if far else timed(prefill, 7, warm=1)}
        steps["token_ms"] = timed(token, 8 if far else 40)
        for sequence in range(1, 41):
            llama.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
        for k in (10,) if far else (10, 40):
            steps[f"branch_ms.{k}"] = timed(lambda: ahead(k, [0]), 5 if far else 30, warm=1 if far else 3)
            if not far:
                steps[f"branch_all_ms.{k}"] = timed(lambda: ahead(k, range(k)), 30)
        found.append(steps)
        llama.llama_free(context)
    best = {name: min((steps[name] for steps in found), key=lambda quartiles: quartiles[1]) for name in steps}
    report(best, base_tokens_per_s=max(rates), load_ms=(loaded - began) * 1e3, tokens=answers[0][:32],
           peak_rss_mb=peak)


def measure_torch(file, threads):
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaForSequenceClassification

    torch.set_num_threads(int(threads))
    torch.set_grad_enabled(False)
    where = {"pretrained_model_name_or_path": os.path.dirname(file), "gguf_file": os.path.basename(file)}
    policy = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(**where)
    tokens_of = lambda text: tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    ids, prompts = tokens_of(TEXT)[:, :PREFIX], [tokens_of(CHAT.format(prompt)) for prompt in PROMPTS]
    reward = LlamaForSequenceClassification.from_pretrained(**where, dtype=torch.bfloat16, num_labels=1).eval()
    reward.config.pad_token_id = 2
    width = policy.config.hidden_size
    value = nn.Sequential(nn.Linear(width, 8192), nn.Tanh(), nn.Linear(8192, width), nn.Tanh(),
                          nn.Linear(width, 1)).bfloat16()
    read = lambda tokens, cache: policy(tokens, past_key_values=cache, logits_to_keep=1).logits[0, -1]
    prefix = DynamicCache()
    read(ids, prefix)

    def clock(work):
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3

    def prefill():
        return clock(lambda: read(ids, DynamicCache()))

    def token():
        took = clock(lambda: read(ids[:, :1], prefix))
        prefix.crop(PREFIX)
        return took

    def answers(prompts, choose):
        """Tokens per second and the last answer. `choose` receives the text so far, its cache and the logits."""
        start = time.perf_counter()
        for text in prompts:
            length, cache = text.shape[1], DynamicCache()
            logits = read(text, cache)
            for _ in range(TOKENS):
                chosen = choose(text, cache, logits).view(1, 1)
                text = torch.cat([text, chosen], 1)
                logits = read(chosen, cache)
        return len(prompts) * TOKENS / (time.perf_counter() - start), text[0, length:].tolist()

    def args(text, _, logits):
        top = logits.float().topk(K)
        sequences = torch.cat([text.expand(K, -1), top.indices[:, None]], 1)
        rewards = reward(sequences, use_cache=False).logits[:, 0].float()
        shaped = 12 * torch.sigmoid(1.5 * (rewards - rewards.mean()))  # its bisection would cost 0.3 ms more
        return top.indices[(top.values + 0.5 * shaped).argmax()]

    def cd(_, cache, logits):
        top = (logits.float() / 0.7).log_softmax(0).topk(K)
        tiled = DynamicCache([(layer.keys.repeat(K, 1, 1, 1), layer.values.repeat(K, 1, 1, 1))
                              for layer in cache.layers])
        hidden = policy.model(top.indices[:, None], past_key_values=tiled).last_hidden_state[:, -1]
        return top.indices[(top.values + 1.5 * value(hidden)[:, 0].float()).argmax()]

    steps = {"prefill_ms": timed(prefill, 7, warm=1), "token_ms": timed(token, 20)}
    greedy = lambda text, cache, logits: logits.argmax()
    report(steps, base_tokens_per_s=answers(prompts, greedy)[0], tokens=answers(prompts[:1], greedy)[1][:32],
           args_model_tokens_per_s=answers(prompts[:1], args)[0], cd_tokens_per_s=answers(prompts[:1], cd)[0])


def encode(source, out):
    """Writes the model as BF16.gguf or Q8_0.gguf: matrices in that type, norms as F32. Prints its tokens."""
    import gguf

    name = os.path.basename(out).removesuffix(".gguf")
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(out, "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key not in ("general.architecture", "general.file_type"):
            item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], item)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{name}"])
    for tensor in reader.tensors:
        kind = gguf.GGMLQuantizationType["F32" if len(tensor.shape) == 1 else name]
        weight = gguf.quantize(gguf.dequantize(tensor.data, tensor.tensor_type), kind)
        writer.add_tensor(tensor.name, weight, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(json.dumps(reader.fields["tokenizer.ggml.tokens"].contents()))


def busy():
    """CPU seconds of all processes of the machine so far, and those of our children only."""
    ticks = open("/proc/stat").readline().split()[1:9]
    used = sum(int(n) for i, n in enumerate(ticks) if i not in (3, 4)) / os.sysconf("SC_CLK_TCK")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used, usage.ru_utime + usage.ru_stime


def alone(command, answer):
    """The figures of one process (its output, or the file `answer`), and the average number of cores used by others."""
    began, (all_before, own_before) = time.time(), busy()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    all_after, own_after = busy()
    figures = json.loads(open(answer).read() if answer else done.stdout.splitlines()[-1])
    for name, each in (figures.pop("branch_ms", None) or {}).items():
        figures[f"branch_ms.{name}"] = each
    others = (all_after - all_before) - (own_after - own_before)
    return figures | {"cores_of_others": max(0.0, others / (time.time() - began))}


def table(say, title, ours, theirs, name):
    """Prints the medians over the rounds; the last column is above 1 if ours is better."""
    say(f"\n{title:30}{'ours':>10}{name:>14}{'ours better':>14}")
    for key, label in ROWS.items():
        mine, other = ([r[key] for r in rounds if r.get(key)] for rounds in (ours, theirs))
        if not other:
            continue
        a, b = (statistics.median(x) if x else None for x in (mine, other))
        better = f"{a / b if key.endswith('_s') else b / a:13.2f}x" if mine else ""
        say(f"{label:30}{f'{a:.1f}' if mine else '-':>10}{b:14.1f}{better}")


def installed(say):
    """The peers that are installed."""
    peers = []
    for peer, packages in PEERS.items():
        try:
            versions = [f"{package} {importlib.metadata.version(package)}" for package in packages]
            peers.append(peer)
            say(f"{peer}:", ", ".join(versions))
        except importlib.metadata.PackageNotFoundError as missing:
            say(f"{peer}: left out, {missing.name} is not installed")
    return peers


def plan(say, folder, file=None, length=None):
    """(who, type, threads) -> the command that measures it and the file of its figures; also the model's tokens."""
    jobs, vocabulary, answer = {}, [], f"{folder}/ours.json"
    step = lambda work, file, last: [sys.executable, __file__, work, file, last]
    if file:
        installed(say)
        for kv in ("f32", "bf16") if length else ():
            jobs["ours", kv, 2] = [BINARY, "bench", "--model", file, "--kv-dtype", kv, "--threads", "2", "--quick",
                                   "--length", length, "--json", answer], answer
        if length:
            jobs["llama.cpp", "f16", 2] = step("llama", file, "2") + [length], None
            return jobs, None
        for threads in (1, 2):
            jobs["ours", "native", threads] = [BINARY, "bench", "--model", file, "--dtype", "native", "--threads", str(threads),
                                               "--json", answer], answer
            jobs["llama.cpp", "native", threads] = step("llama", file, str(threads)), None
        return jobs, None
    if subprocess.run([BINARY, "bench", "--help"], capture_output=True).returncode == 0:
        for dtype, threads in [(dtype, threads) for dtype in ("bf16", "int8", "native") for threads in (1, 2)]:
            jobs["ours", dtype, threads] = [BINARY, "bench", "--model", "smollm2-135m", "--dtype", dtype,
                                            "--threads", str(threads), "--json", answer], answer
    else:
        say("ours: left out, the binary has no `bench`")
    peers = installed(say)
    bf16, q8 = f"{folder}/BF16.gguf", f"{folder}/Q8_0.gguf"
    if peers:
        source = glob.glob(MODEL, recursive=True)[0]
        for file in (bf16, q8):
            vocabulary = json.loads(subprocess.check_output(step("encode", source, file)))
    if "llama.cpp" in peers:
        for dtype, file in [("bf16", bf16), ("int8", q8), ("native", source)]:
            for threads in (1, 2):
                jobs["llama.cpp", dtype, threads] = step("llama", file, str(threads)), None
    if "transformers" in peers:
        jobs["transformers", "bf16", 2] = step("torch", bf16, "2"), None
    return jobs, vocabulary


@contextlib.contextmanager
def kept(name, command, model="smollm2-135m"):
    """A temporary folder, and `say`, which prints to standard output and to bench/runs/DATE-NAME.txt."""
    say = lambda *words: (print(*words, flush=True), print(*words, file=record, flush=True))
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    path = f"{ROOT}/bench/runs/{datetime.date.today()}-{name}.txt"
    with open(path, "w") as record, tempfile.TemporaryDirectory() as folder:
        cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "")
        say(f"command: {command}")
        say("commit: ", git("rev-parse", "--short", "HEAD") + (" with changes" if git("diff", "HEAD") else ""))
        say("machine:", os.cpu_count(), "x", cpu, platform.machine(), f"| model {model}")
        yield say, folder


def company(say, rounds, figures):
    """Reports whether other programs used the machine."""
    worst = max((each["cores_of_others"] for each in figures), default=0)
    say(f"\nmedians over {rounds} rounds; other programs kept at most {worst:.2f} cores busy meanwhile"
        + (": NOT a quiet machine" if worst > 0.2 else ""))


def behind(figures, length):
    """Our figures with the steps behind so many tokens only."""
    grown = figures.pop("by_length", None)
    if not length or not grown:
        return figures
    return {"token_ms": grown["token_ms"][length], "branch_ms.10": grown["branch_10_ms"][length],
            "cores_of_others": figures["cores_of_others"]}


def main(rounds=3, file=None, length=None):
    model = pathlib.Path(file).name if file else "smollm2-135m"
    name, command = (f"peers-{pathlib.Path(model).stem}", f"{rounds} {model}") if file else ("peers", rounds)
    if length:
        name, command = f"{name}-{length}", f"{command} {length}"
    with kept(name, f"bench/peers.py {command}", model) as (say, folder):
        jobs, vocabulary = plan(say, folder, file, length)
        found, texts = {job: [] for job in jobs}, {}
        say("\nraw figures, round by round (cores_of_others: how many cores other programs kept busy meanwhile)")
        for _ in range(int(rounds)):
            for job, command in jobs.items():
                figures = behind(alone(*command), length)
                tokens = figures.pop("tokens", [])
                texts[job] = "".join(vocabulary[t] for t in tokens) if vocabulary else ""
                found[job].append(figures)
                say(*job, json.dumps(figures))
        if vocabulary:
            say("\ngreedy text of each peer, to see that they compute the same")
        for job, text in texts.items():
            if text:
                say(f"{' '.join(map(str, job)):20} {text.replace('Ġ', ' ').replace('Ċ', ' ')}")
        company(say, rounds, [figures for each in found.values() for figures in each])
        for (peer, dtype, threads), theirs in found.items():
            own = [other for other in found if other[0] == "ours" and other[2] == threads and (length or other[1] == dtype)]
            for ours in own or [("ours", dtype, threads)] if peer != "ours" else ():
                title = f"{f'keys and values {ours[1]}' if length else dtype}, {threads} thread{'s' * (threads > 1)}"
                table(say, title, found.get(ours, []), theirs, peer)


if __name__ != "__main__":
    pass  # imported by another script
elif len(sys.argv) > 1 and sys.argv[1] in ("encode", "llama", "torch"):
    # Each measurement has its own process, so that threads and memory of others do not affect it.
    {"encode": encode, "llama": measure_llama, "torch": measure_torch}[sys.argv[1]](*sys.argv[2:])
else:
    main(*sys.argv[1:])
