//! Builds the tokenizer of a GGUF file from its metadata, with the same components as in a `tokenizer.json`.

use candle_core::quantized::gguf_file::{Content, Value};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NFC, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    Tokenizer,
};

use crate::model::as_u64;

/// Token types of GGUF.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// Texts of tokens that end a turn or a text, whatever the metadata say: the list of llama.cpp.
const ENDS: [&str; 19] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "</s>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
];

/// Whether a token with this text ends a turn or a text in the models that have it.
pub(super) fn is_end(text: &str) -> bool {
    ENDS.contains(&text)
}

/// The character that stands for a space in vocabularies of SentencePiece.
const SPACE: &str = "▁";

/// The pre-tokenizer regex of GPT-4, Llama 3 and Qwen, which differ in how they group digits.
fn words(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// The pre-tokenizer regex of GPT-4o.
const WORDS_BY_CASE: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Builds the tokenizer.
///
/// # Errors
/// The metadata are incomplete, or the tokenizer is of an unsupported kind.
pub(super) fn build(content: &Content) -> Result<Tokenizer, String> {
    let said = Said(content);
    let tokens = said.texts("tokens")?;
    let kind = said.text("model").unwrap_or("(none)");
    let mut tokenizer = match kind {
        "gpt2" => by_merges(&said, &tokens)?,
        "llama" => by_scores(&said, &tokens)?,
        other => return Err(format!("tokenizers of the kind '{other}' are not supported")),
    };
    // Added tokens are recognised before anything else: control tokens, the unknown token and user-defined tokens.
    let kinds = said.kinds(&tokens);
    // The tokens of Phi-3 take the white space behind them with them, as in its tokenizer.json and in llama.cpp.
    let strips = kind == "llama" && is_phi3(content);
    let is_added = |kind: u64| [CONTROL, UNKNOWN, USER_DEFINED].contains(&kind);
    let added: Vec<AddedToken> = (tokens.iter().zip(kinds).filter(|(_, kind)| is_added(*kind)))
        .map(|(text, of)| {
            let token = AddedToken::from(text.clone(), of != USER_DEFINED).normalized(false);
            token.rstrip(strips && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str()))
        })
        .collect();
    tokenizer.add_tokens(added).map_err(|e| e.to_string())?;
    around(&said, &tokens, kind, &mut tokenizer)?;
    Ok(tokenizer)
}

/// Whether a model is of the Phi-3 family, by its architecture or its name.
fn is_phi3(content: &Content) -> bool {
    let told = ["general.architecture", "general.name", "tokenizer.ggml.pre"].map(|key| {
        let text = content.metadata.get(key).and_then(|value| value.to_string().ok());
        text.map(|text| text.to_lowercase()).unwrap_or_default()
    });
    told.iter().any(|text| ["phi3", "phi-3", "phi 3"].iter().any(|name| text.contains(name)))
}

/// The tokens that end a text: those that the metadata name, and the control tokens whose text is a known end of turn.
pub(crate) fn ends(content: &Content) -> Vec<u32> {
    let said = Said(content);
    let named = ["eos_token_id", "eot_token_id", "eom_token_id"].map(|key| said.number(key));
    let mut ends: Vec<u32> = named.into_iter().flatten().filter_map(|id| id.try_into().ok()).collect();
    let tokens = said.texts("tokens").unwrap_or_default();
    let kinds = said.kinds(&tokens);
    let known = || {
        let known = (0..).zip(tokens.iter().zip(&kinds));
        known.filter(|(_, (text, kind))| **kind == CONTROL && is_end(text))
    };
    // A message of gpt-oss or Solar ends with <|end|>, but the turn goes on until <|return|> or a call.
    let has = |text: &str| known().any(|(_, (known, _))| known == text);
    let goes_on = has("<|return|>") && has("<|call|>") || has("<|flush|>") && has("<|calls|>");
    ends.extend(known().filter(|(_, (text, _))| !goes_on || *text != "<|end|>").map(|(id, _)| id));
    ends
}

/// Byte-level BPE, as in GPT-2 and its successors.
fn by_merges(said: &Said<'_>, tokens: &[String]) -> Result<Tokenizer, String> {
    let pre = said.text("pre").unwrap_or("gpt-2");
    let merges = said.texts("merges")?.into_iter().map(|merge| {
        let (left, right) = merge.split_once(' ').ok_or_else(|| format!("'{merge}' is not a merge"))?;
        Ok((left.to_owned(), right.to_owned()))
    });
    let llama3 =
        ["llama-bpe", "llama3", "llama-v3", "falcon3", "smaug-bpe", "dbrx", "lfm2"].contains(&pre);
    let bpe = BPE::builder()
        .vocab_and_merges(numbered(tokens), merges.collect::<Result<Vec<_>, String>>()?)
        .ignore_merges(llama3 && pre != "smaug-bpe" && pre != "dbrx")
        .build()
        .map_err(|e| e.to_string())?;
    let mut tokenizer = Tokenizer::new(bpe);
    let split = |regex: &str| -> Result<PreTokenizerWrapper, String> {
        let pattern = SplitPattern::Regex(regex.to_owned());
        let split =
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|e| e.to_string())?;
        Ok(split.into())
    };
    // Maps bytes to characters, without splitting the text.
    let bytes: PreTokenizerWrapper = ByteLevel::new(false, true, false).into();
    // Also splits the text as GPT-2 does.
    let cut: PreTokenizerWrapper = ByteLevel::new(false, true, true).into();
    let parts = match pre {
        "gpt-2" | "gpt2" | "default" | "phi-2" | "olmo" | "jina-v2-en" | "mpt" => vec![cut],
        "smollm" | "starcoder" | "refact" | "command-r" => vec![Digits::new(true).into(), cut],
        "qwen2" | "stablelm2" | "deepseek-r1-qwen" | "megrez" => vec![split(&words(r"\p{N}"))?, bytes],
        "gpt-4o" | "llama4" => vec![split(WORDS_BY_CASE)?, bytes],
        _ if llama3 => vec![split(&words(r"\p{N}{1,3}"))?, bytes],
        other => return Err(format!("the pre-tokenizer '{other}' is not supported")),
    };
    if matches!(pre, "qwen2" | "deepseek-r1-qwen") {
        tokenizer.with_normalizer(Some(NFC)).map_err(|e| e.to_string())?;
    }
    tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// SentencePiece's BPE, as in Llama 2, Mistral, Gemma and Phi-3. Tokens with a higher score are merged first.
fn by_scores(said: &Said<'_>, tokens: &[String]) -> Result<Tokenizer, String> {
    let scores = said.reals("scores")?;
    if scores.len() != tokens.len() {
        return Err(format!("{} scores for {} tokens", scores.len(), tokens.len()));
    }
    let numbers = numbered(tokens);
    let mut merges = Vec::new();
    let kinds = said.kinds(tokens);
    // Text is never merged into a control token.
    let words = tokens.iter().zip(&scores).zip(kinds).filter(|(_, kind)| *kind != CONTROL);
    for ((whole, score), kind) in words {
        // Runs of spaces, as Gemma has, are merged before all else: the text that they are looked for in has spaces.
        let is_run = kind == USER_DEFINED && whole.contains(SPACE);
        let score = if is_run { f32::INFINITY } else { *score };
        let cuts = whole.char_indices().skip(1).map(|(at, _)| whole.split_at(at));
        let mut parts: Vec<(u32, u32, &str, &str)> = cuts
            .filter_map(|(left, right)| Some((*numbers.get(left)?, *numbers.get(right)?, left, right)))
            .collect();
        parts.sort_unstable();
        merges.extend(parts.into_iter().map(|(_, _, left, right)| (score, left, right)));
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let merges =
        merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect();
    let unknown = said.number("unknown_token_id").or(said.number("unk_token_id")).unwrap_or(0);
    let mut bpe =
        BPE::builder().vocab_and_merges(numbers.clone(), merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = tokens.get(unknown as usize) {
        bpe = bpe.unk_token(unknown.clone());
    }
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(|e| e.to_string())?);
    let failed = |e: tokenizers::Error| e.to_string();
    let prefix = said.flag("add_space_prefix").unwrap_or(true);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if prefix {
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(failed)?.into());
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(failed)?;
    let mut decoders: Vec<DecoderWrapper> = vec![
        Replace::new(SPACE, " ").map_err(failed)?.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
    ];
    if prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

/// Adds the special tokens of every text: BOS for most tokenizers, EOS for a few.
fn around(
    said: &Said<'_>,
    tokens: &[String],
    kind: &str,
    tokenizer: &mut Tokenizer,
) -> Result<(), String> {
    let usual = kind == "llama" || matches!(said.text("pre"), Some("llama-bpe" | "llama3" | "llama-v3"));
    let token = |key: &str| {
        let id = said.number(key)?;
        Some((tokens.get(usize::try_from(id).ok()?)?.clone(), u32::try_from(id).ok()?))
    };
    let bos = token("bos_token_id").filter(|_| said.flag("add_bos_token").unwrap_or(usual));
    let eos = token("eos_token_id").filter(|_| said.flag("add_eos_token").unwrap_or(false));
    if bos.is_none() && eos.is_none() {
        return Ok(());
    }
    let [first, last] = [&bos, &eos].map(|token| token.as_ref().map(|(text, _)| text.clone()));
    let single: Vec<String> = [first, Some("$0".to_owned()), last].into_iter().flatten().collect();
    let specials: Vec<(String, u32)> = bos.into_iter().chain(eos).collect();
    let template = TemplateProcessing::builder().try_single(single).map(|builder| {
        builder.special_tokens(specials);
        builder.build()
    });
    let template = template.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    tokenizer.with_post_processor(Some(template));
    Ok(())
}

fn numbered(tokens: &[String]) -> Vocab {
    tokens.iter().cloned().zip(0..).collect()
}

/// The metadata, by keys without the prefix `tokenizer.ggml.`.
struct Said<'a>(&'a Content);

impl Said<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.metadata.get(&format!("tokenizer.ggml.{key}"))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.to_string().ok().map(String::as_str)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.to_bool().ok()
    }

    fn number(&self, key: &str) -> Option<u64> {
        as_u64(self.get(key)?)
    }

    /// The types of the tokens. A token that can be nothing else than an end of turn is a control token, even if the
    /// file says otherwise.
    fn kinds(&self, tokens: &[String]) -> Vec<u64> {
        let mut kinds = self.numbers("token_type").unwrap_or_default();
        kinds.resize(tokens.len(), NORMAL);
        for (kind, text) in kinds.iter_mut().zip(tokens) {
            if is_end(text) && (text.starts_with("<|") || text == "<end_of_turn>") {
                *kind = CONTROL;
            }
        }
        kinds
    }

    fn list<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, String> {
        let list = self.get(key).and_then(|value| value.to_vec().ok());
        let list = list.ok_or_else(|| format!("the metadata lack a list 'tokenizer.ggml.{key}'"))?;
        let read = list.iter().map(read);
        read.collect::<Option<_>>().ok_or_else(|| format!("tokenizer.ggml.{key} holds something else"))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, String> {
        self.list(key, |value| value.to_string().ok().cloned())
    }

    fn reals(&self, key: &str) -> Result<Vec<f32>, String> {
        self.list(key, |value| value.to_f32().ok())
    }

    fn numbers(&self, key: &str) -> Result<Vec<u64>, String> {
        self.list(key, as_u64)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::gguf_file::VersionedMagic;

    use super::*;

    fn content(metadata: &[(&str, Value)]) -> Content {
        let metadata =
            metadata.iter().map(|(key, v)| (format!("tokenizer.ggml.{key}"), v.clone())).collect();
        let tensor_infos = std::collections::HashMap::new();
        Content { magic: VersionedMagic::GgufV3, metadata, tensor_infos, tensor_data_offset: 0 }
    }

    fn texts(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| Value::String((*text).to_owned())).collect())
    }

    /// A vocabulary of SentencePiece: tokens with a higher score are merged first.
    #[test]
    fn scores_are_merges() {
        let tokens =
            ["<unk>", "<s>", "</s>", "<0x21>", "▁", "a", "b", "c", "ab", "bc", "▁ab", "<go>", "▁▁"];
        let scores = [0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, 0.0, 0.0];
        let kinds = [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 3, 4];
        let metadata = [
            ("model", Value::String("llama".into())),
            ("tokens", texts(&tokens)),
            ("scores", Value::Array(scores.map(Value::F32).to_vec())),
            ("token_type", Value::Array(kinds.map(Value::I32).to_vec())),
            ("bos_token_id", Value::U32(1)),
        ];
        let encode = |tokenizer: &Tokenizer, text: &str, special: bool| {
            tokenizer.encode_fast(text, special).unwrap().get_ids().to_vec()
        };
        let tokenizer = build(&content(&metadata)).unwrap();
        assert_eq!(encode(&tokenizer, "ab", true), [1, 10]);
        // bc is merged before ab, so ab cannot be merged any more.
        assert_eq!(encode(&tokenizer, "abc", false), [4, 5, 9]);
        assert_eq!(encode(&tokenizer, "!<go>a", false), [4, 3, 11, 4, 5]);
        assert_eq!(tokenizer.decode(&[1, 10, 4, 5, 3], true).unwrap(), "ab a!");
        let bare = [
            &metadata[..],
            &[("add_space_prefix", Value::Bool(false)), ("add_bos_token", Value::Bool(false))],
        ]
        .concat();
        let tokenizer = build(&content(&bare)).unwrap();
        assert_eq!(encode(&tokenizer, "ab  a", true), [8, 12, 5]);
        assert_eq!(tokenizer.decode(&[10], true).unwrap(), " ab");
    }

    /// What the metadata name ends a text, and so do control tokens with a known text.
    #[test]
    fn ends_are_found_by_their_text() {
        let found = |tokens: &[&str], kinds: &[i32], ids: &[(&str, u32)]| {
            let mut metadata = vec![
                ("tokens", texts(tokens)),
                ("token_type", Value::Array(kinds.iter().map(|kind| Value::I32(*kind)).collect())),
            ];
            metadata.extend(ids.iter().map(|(key, id)| (*key, Value::U32(*id))));
            let mut ends = ends(&content(&metadata));
            ends.sort_unstable();
            ends.dedup();
            ends
        };
        let llama = ["a", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"];
        assert_eq!(found(&llama, &[1, 3, 3, 3, 3], &[("eos_token_id", 2)]), [2, 3, 4]);
        // Without types, and with the type of a word: these texts are nothing else.
        assert_eq!(found(&llama, &[], &[]), [2, 3, 4]);
        assert_eq!(found(&["<end_of_turn>", "<|im_end|>"], &[4, 1], &[]), [0, 1]);
        // These may be words.
        assert_eq!(found(&["</s>", "[EOT]", "<EOT>"], &[3, 1, 1], &[]), [0]);
        assert_eq!(found(&["</s>", "[EOT]", "<EOT>"], &[1, 3, 4], &[]), [1]);
        assert_eq!(
            found(&["x", "y", "z"], &[3, 3, 3], &[("eot_token_id", 1), ("eom_token_id", 2)]),
            [1, 2]
        );
        let harmony = ["<|end|>", "<|return|>", "<|call|>", "<|endoftext|>"];
        assert_eq!(found(&harmony, &[3; 4], &[("eos_token_id", 1)]), [1, 2, 3]);
        assert_eq!(found(&["<|end|>", "<|endoftext|>"], &[3; 2], &[]), [0, 1]);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let refused = |metadata: &[(&str, Value)]| build(&content(metadata)).map(|_| ()).unwrap_err();
        let text = |text: &str| Value::String(text.to_owned());
        assert_eq!(refused(&[]), "the metadata lack a list 'tokenizer.ggml.tokens'");
        let tokens = ("tokens", texts(&["a", "b", "ab"]));
        assert_eq!(
            refused(&[("model", text("t5")), tokens.clone()]),
            "tokenizers of the kind 't5' are not supported"
        );
        let gpt2 = [("model", text("gpt2")), tokens.clone(), ("merges", texts(&["a b"]))];
        let unknown = [&gpt2[..], &[("pre", text("viking"))]].concat();
        assert_eq!(refused(&unknown), "the pre-tokenizer 'viking' is not supported");
        assert_eq!(build(&content(&gpt2)).unwrap().encode_fast("ab", true).unwrap().get_ids(), [2]);
        let broken = [("model", text("gpt2")), tokens.clone(), ("merges", texts(&["ab"]))];
        assert_eq!(refused(&broken), "'ab' is not a merge");
        let short = [("model", text("llama")), tokens, ("scores", Value::Array(vec![Value::F32(0.0)]))];
        assert_eq!(refused(&short), "1 scores for 3 tokens");
    }
}
