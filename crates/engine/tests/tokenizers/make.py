#!/usr/bin/env python3
"""Makes the tokenizers of this folder and what they make of nasty texts. Needs PyPI's tokenizers==0.23.3.

Each tokenizer has the components that the `tokenizer.json` of its family has, and a small vocabulary that is trained here.
`../tests/tokenizers.rs` builds the same tokenizer from GGUF metadata and compares both with `NAME.expected.json`.
"""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
SIZE = 700
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BY_CASE = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
           r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
           r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

CORPUS = """The quick brown fox jumps over the lazy dog. The quick brown fox isn't lazy; the dog's asleep, and they'll say so.
I'm here, you're there, we've been, she'd go, it's fine, don't. IT'S FINE, DON'T. The the the THE.
In 1999, 12345 people paid 3.14 or 2,718,281 euros. 100 200 300 1000 2024-06-30 13:05:09.
def function(self, value):
    if value is None:
        return [self.value for value in range(10)]
        # comment    with    spaces
\tindented with tabs\t\tand more\r\nline ends\r\n\r\nof Windows
Grüße aus München, naïve café déjà vu, Ångström, où, señor, straße. Привет, как дела? Привет мир.
你好，世界！今天天气很好。你好世界。こんにちは世界。안녕하세요 세계. مرحبا بالعالم שלום עולם नमस्ते दुनिया
😀 😂 👍 👨‍👩‍👧 🇩🇪 🏳️‍🌈 <think> </think> <user> </user> system user assistant user assistant
... --- === *** ### https://example.org/a/b?c=d&e=f#g {"key": "value", "list": [1, 2, 3]} \\n \\u00e9 <|x|> <b> [INST]
Internationalisation internationalization lowerUPPER camelCaseWords HTMLParser XMLHttpRequest iPhone
"""

TEXTS = [
    "", " ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", "\n\n\n\n", " \n", "\n ", "a", " a", "a ", "  a", "a  ", "   a   b    c  ",
    "\ta\t\tb\t", "a\nb", "a\r\nb\r\n\r\nc", "a\rb", "a \n b", "a\n\n\n  b", "a\u0000b", "\u0000", "\u0001\u0002\u001f\u007f\u0080",
    "a\u000bb\u000cc", "\u00a0a\u00a0b", "a\u2003b\u3000c\u2028d\u2029e\u0085f", "\ufeffa", "a\u200bb\u200cc\u200dd\u00ade",
    "The quick brown fox isn't lazy; the dog's asleep.", "I'm you're we've she'd it'll don't", "I'M YOU'RE WE'VE SHE'D IT'LL DON'T",
    "'s 't 're 've 'm 'll 'd ' '' '''", "it\u2019s don\u2019t", "'Sun's 'LLama", "1", "12", "123", "1234", "12345", "1234567890123", "3.14159",
    "2,718,281", "1 2  3   4", "a1b22c333d4444", "2024-06-30 13:05:09", "\u0661\u0662\u0663\u0664 \u0967\u0968\u0969 \u00b2\u00b3\u00bd \u2167 \uff11\uff12\uff13\uff14",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea\U0001f1e9", "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd", "a\U0001f600b \U0001f600 c",
    "\u00e9", "e\u0301", "e\u0301\u0327 c\u0327\u0301", "\u1e9b\u0323", "\u212b \u2126 \ufb01 \uff21", "\uac00 \u1100\u1161", "\u0344 \u0958 \u2adc",
    "Z\u0361a\u0334l\u0335g\u0336o\u0337\u0338\u0321\u0322", "\u0301", "\u0301a", ">\u0338 =\u0338 <\u0338", "na\u00efve cafe\u0301 d\u00e9ja\u0300 vu",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u202eabc\u202c \u0645\u0631\u062d\u0628\u0627", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\uc548\ub155\ud558\uc138\uc694", "\u4f60\u597dworld\u4e16\u754c hello\u041f\u0440\u0438\u0432\u0435\u0442",
    "Gr\u00fc\u00dfe \u0130stanbul \u0131 \u01c4 \u01c5 \u01c6 \u1e9e", "\\ud83d\\ude00 \\u00e9 \\x41 %F0%9F%98%80 &#128512; &eacute;", "\ufffd \ufffe \U0010ffff \ue000",
    "\u2581", "\u2581a \u2581\u2581b", "a\u2581b", "<0x0A>", "<0x41><0xFF>", "\u0120 \u010a \u0100\u0120a", "##a @@b </w>",
    "https://example.org/a/b?c=d&e=f#g", "{\"key\": \"value\", \"list\": [1, 2, 3]}", "    if x:\n        return y\n", "a/b//c\n/d ///\n\n",
    "!!!??? ... --- === ***\n***\r\n", "camelCaseWords HTMLParser XMLHttpRequest iPhone IPHONEs", "a" * 300, "ab" * 150, "=" * 129, " " * 65, "\n" * 33, "\u00e9" * 40,
    "Donaudampfschifffahrtselektrizit\u00e4tenhauptbetriebswerkbauunterbeamtengesellschaft", "x" + "\u0301" * 50,
    "BOS", "BOSa", "BOS a", "BOS BOS", " BOS", "aEOS", "EOS\na", "EOS  a EOS", "END", "END\n", "END \n a", "aENDb", " END ", "a END\r\nb", "END\tEND", "ENDEND",
    "START user\nHiEND\nSTART assistant\n", "<think>\nHm.\n</think>\n\nHi", "<think> a</think>b", " <think> ", "<think>\u0338", "<THINK>", "< think>", "</think",
    "<|im_start|", "<|", "|>", "<s", "</s", "<unk>", "[UNK]", "<pad>", "<|x|>",
]


def text_of(text, names):
    """The text with this tokenizer's control tokens."""
    for stand_in, token in names.items():
        text = text.replace(stand_in, token)
    return text


def train(pre_tokenizer, normalizer=None, alphabet=(), special=(), size=SIZE):
    """Vocabulary and merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet), special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def by_bytes(name, before, special, user=(), normalizer=None, ignore_merges=False, bos=False, **gguf):
    """Byte-level BPE. `before` splits the text; with None, the byte level does."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=before is None or isinstance(before, pre_tokenizers.Digits))
    pre_tokenizer = pre_tokenizers.Sequence([before, level]) if before else level
    vocab, merges = train(pre_tokenizer, normalizer, pre_tokenizers.ByteLevel.alphabet())
    if ignore_merges:
        # As Llama 3 has: a word that no merges lead to.
        vocab["\u0120unmergeable"] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in user])
    level = processors.ByteLevel(trim_offsets=False)
    if bos:
        around = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=[(special[0], tokenizer.token_to_id(special[0]))])
        level = processors.Sequence([level, around])
    tokenizer.post_processor = level
    names = {"BOS": special[0], "EOS": special[1], "END": special[-1], "START": special[2]}
    save(name, tokenizer, names, {"model": "gpt2", "bos": special[0], **gguf})


def by_pieces(name, prefix, special, user=(), strips=(), **gguf):
    """SentencePiece's BPE, as transformers converts it: all pairs that give a piece are merges, better pieces first."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    split = pre_tokenizers.Metaspace(prepend_scheme="first" if prefix else "never")
    vocab, merges = train(split, special=pieces, size=len(pieces) + 500)
    order = {left + right: -rank for rank, (left, right) in reversed([*enumerate(merges)])}
    # As Gemma has: tokens of users are pieces that are merged first.
    for token in user:
        vocab.setdefault(token, len(vocab))
        order[token] = 1
    pairs = []
    for piece, score in order.items():
        cuts = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        cuts = sorted((cut for cut in cuts if cut[0] in vocab and cut[1] in vocab), key=lambda cut: (vocab[cut[0]], vocab[cut[1]]))
        pairs += [(score, cut) for cut in cuts]
    merges = [cut for _, cut in sorted(pairs, key=lambda pair: -pair[0])]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    replace = normalizers.Replace(" ", "\u2581")
    back = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
        tokenizer.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])
    else:
        tokenizer.normalizer, tokenizer.decoder = replace, decoders.Sequence(back)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False, rstrip=t in strips) for t in ["<unk>", "<s>", "</s>", *special]])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in user])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"BOS": "<s>", "EOS": "</s>", "END": special[-1], "START": special[0]}
    save(name, tokenizer, names, {"model": "llama", "bos": "<s>", "prefix": prefix, **gguf})


def save(name, tokenizer, names, gguf):
    (HERE / f"{name}.tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    results = []
    for text in TEXTS:
        text = text_of(text, names)
        ids = tokenizer.encode(text).ids
        results.append([text, ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=False)])
    lines = ",\n".join(json.dumps(result, ensure_ascii=True, separators=(",", ":")) for result in results)
    (HERE / f"{name}.expected.json").write_text(f'{{"gguf":{json.dumps(gguf)},"texts":[\n{lines}\n]}}\n')
    print(name, tokenizer.get_vocab_size(), sum(len(result[1]) for result in results))


def split(regex):
    return pre_tokenizers.Split(Regex(regex), "isolated")


CHATML = ["<|endoftext|>", "<|endofprompt|>", "<|im_start|>", "<|im_end|>"]
THINK = ["<think>", "</think>", "<tool_call>", "</tool_call>"]

by_bytes("gpt-2", None, ["<|endoftext|>", "<|endofprompt|>", "<|user|>", "<|end|>"], pre="gpt-2")
by_bytes("smollm", pre_tokenizers.Digits(individual_digits=True), CHATML, pre="smollm")
by_bytes("qwen2", split(WORDS.replace("DIGITS", r"\p{N}")), CHATML, THINK, normalizer=normalizers.NFC(), pre="qwen2")
by_bytes("llama-bpe", split(WORDS.replace("DIGITS", r"\p{N}{1,3}")),
         ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eot_id|>"], ignore_merges=True, bos=True, pre="llama-bpe")
by_bytes("gpt-4o", split(BY_CASE), ["<|startoftext|>", "<|endoftext|>", "<|start|>", "<|end|>"], pre="gpt-4o")
by_pieces("llama", True, ["[START]", "[END]"], ["<think>", "</think>"])
by_pieces("gemma", False, ["<start_of_turn>", "<end_of_turn>"],
          ["\n\n", "\n\n\n", "\n\n\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "\u2581\u2581\u2581\u2581", "\t\t", "<b>"])
by_pieces("phi3", True, ["<|user|>", "<|assistant|>", "<|endoftext|>", "<|end|>"], strips=["</s>", "<|user|>", "<|assistant|>", "<|end|>"], family="Phi3")
