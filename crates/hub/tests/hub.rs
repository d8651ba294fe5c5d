//! The client of the model hub.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;

use stackelberg_hub::{Hub, Progress, SourceError, Token};
use tempfile::TempDir;

use crate::hub_server::{Answers, COMMIT, HubServer, WEIGHTS_SHA256};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const MODEL: [(&str, &str); 3] =
    [("config.json", "{}"), ("tokenizer.json", "[1]"), ("model.safetensors", "weights")];

fn hub(server: &HubServer, cache: &TempDir) -> Hub {
    Hub {
        hub_cache: Some(cache.path().to_owned()),
        endpoint: server.address.clone(),
        token: Token::new("secret"),
        ..Hub::default()
    }
}

fn resolve(hub: &Hub) -> Result<PathBuf, SourceError> {
    hub.resolve("hf:org/tiny", &|_| ())
}

fn repo(cache: &TempDir) -> PathBuf {
    cache.path().join("models--org--tiny")
}

fn weights(snapshot: &Path) -> io::Result<String> {
    fs::read_to_string(snapshot.join("model.safetensors"))
}

/// Puts the beginning of the weights, or something else, where an interrupted download leaves it.
fn interrupted(cache: &TempDir, part: &str) -> io::Result<()> {
    fs::create_dir_all(repo(cache).join("blobs"))?;
    fs::write(repo(cache).join("blobs").join(format!("{WEIGHTS_SHA256}.incomplete")), part)
}

/// For a model that runs elsewhere, no weights are downloaded; who wants them later gets them into the same folder.
#[test]
fn a_text_side_is_fetched_without_weights() -> Outcome {
    let (server, cache) = (HubServer::with(Answers::new(&MODEL))?, tempfile::tempdir()?);
    let hub = hub(&server, &cache);
    let text = hub.resolve_text("hf:org/tiny", &|_| ())?;
    assert!(text.join("tokenizer.json").exists() && text.join("config.json").exists());
    assert!(!text.join("model.safetensors").exists());
    assert!(server.log().iter().all(|request| !request.path.contains("safetensors")));
    assert_eq!(resolve(&hub)?, text);
    assert_eq!(weights(&text)?, "weights");
    Ok(())
}

#[test]
fn the_cache_has_the_layout_of_huggingface_hub() -> Outcome {
    let (server, cache) = (HubServer::with(Answers::new(&MODEL))?, tempfile::tempdir()?);
    let snapshot = resolve(&hub(&server, &cache))?;
    let repo = repo(&cache);
    assert_eq!(snapshot, repo.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(repo.join("refs/main"))?, COMMIT);
    let link = fs::read_link(snapshot.join("model.safetensors"))?;
    assert_eq!(link, Path::new("../../blobs").join(WEIGHTS_SHA256));
    assert!(repo.join(".no_exist").join(COMMIT).join("generation_config.json").exists());
    assert!(!repo.join(".no_exist").join(COMMIT).join("model.safetensors.index.json").exists());

    // Only the branch is asked for by its name.
    let log = server.log();
    assert_eq!(log[0].path, "/org/tiny/resolve/main/config.json");
    assert!(log[1..].iter().all(|r| r.path.starts_with(&format!("/org/tiny/resolve/{COMMIT}/"))));
    hub(&server, &cache).resolve("hf:org/tiny@refs/pr/1", &|_| ())?;
    assert_eq!(server.log()[log.len()].path, "/org/tiny/resolve/refs%2Fpr%2F1/config.json");
    assert_eq!(fs::read_to_string(repo.join("refs/refs/pr/1"))?, COMMIT);

    // A commit that is in the cache needs no request.
    let before = server.requests();
    let pinned = hub(&server, &cache).resolve(&format!("hf:org/tiny@{COMMIT}"), &|_| ())?;
    assert_eq!((pinned, server.requests()), (snapshot, before));
    Ok(())
}

#[test]
fn an_interrupted_download_is_resumed() -> Outcome {
    let (server, cache) = (HubServer::with(Answers::new(&MODEL))?, tempfile::tempdir()?);
    interrupted(&cache, "wei")?;
    let events = RefCell::new(Vec::new());
    let snapshot =
        hub(&server, &cache).resolve("hf:org/tiny", &|event| events.borrow_mut().push(event))?;
    assert_eq!(weights(&snapshot)?, "weights");
    let log = server.log();
    let ranges: Vec<_> = log.iter().filter_map(|request| request.header("range")).collect();
    assert_eq!(ranges, ["bytes=3-"]);
    let what = "org/tiny/model.safetensors".to_owned();
    let at = |done| Progress::Downloading { what: what.clone(), done, total: Some(7) };
    let events: Vec<_> =
        events.into_inner().into_iter().filter(|e| *e == at(0) || *e == at(3) || *e == at(7)).collect();
    assert_eq!(events, [at(3), at(7)]);
    assert!(!repo(&cache).join("blobs").join(format!("{WEIGHTS_SHA256}.incomplete")).exists());
    Ok(())
}

#[test]
fn a_partial_download_that_does_not_fit_is_replaced() -> Outcome {
    for (part, ranges, downloads) in
        [("xyz", true, 2), ("wei", false, 1), ("too long a part", true, 1), ("weights", true, 0)]
    {
        let server = HubServer::with(Answers { ranges, ..Answers::new(&MODEL) })?;
        let cache = tempfile::tempdir()?;
        interrupted(&cache, part)?;
        assert_eq!(weights(&resolve(&hub(&server, &cache))?)?, "weights", "{part}");
        assert_eq!(server.downloads("model.safetensors"), downloads, "{part}");
    }
    Ok(())
}

#[test]
fn the_token_is_sent_to_the_hub_alone() -> Outcome {
    for (ranges, range) in [(true, Some("bytes=3-")), (false, None)] {
        let storage = HubServer::with(Answers { ranges, ..Answers::new(&MODEL) })?;
        let elsewhere = Some(storage.address.clone());
        let server = HubServer::with(Answers { elsewhere, ranges, ..Answers::new(&MODEL) })?;
        let cache = tempfile::tempdir()?;
        interrupted(&cache, "wei")?;
        assert_eq!(weights(&resolve(&hub(&server, &cache))?)?, "weights");
        assert!(
            server.log().iter().all(|request| request.header("authorization") == Some("bearer secret"))
        );
        let log = storage.log();
        assert_eq!(log.len(), 1, "the hub's own headers say what the file is: {log:?}");
        assert_eq!((log[0].method.as_str(), log[0].header("range")), ("GET", range));
        assert_eq!(log[0].header("authorization"), None);
    }
    Ok(())
}

#[test]
fn a_redirect_that_leads_back_ends() -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    drop(listener);
    let server = HubServer::with(Answers { elsewhere: Some(String::new()), ..Answers::new(&MODEL) })?;
    let cache = tempfile::tempdir()?;
    let said = resolve(&hub(&server, &cache)).expect_err("a loop").to_string();
    assert!(said.contains("it redirects more than 10 times"), "{said}");
    let server = HubServer::with(Answers { elsewhere: Some(address), ..Answers::new(&MODEL) })?;
    let said = resolve(&hub(&server, &cache)).expect_err("nobody there").to_string();
    assert!(said.starts_with("cannot reach the hub for org/tiny"), "{said}");
    Ok(())
}

#[test]
fn gated_and_unknown_repositories() -> Outcome {
    let cache = tempfile::tempdir()?;
    for (status, code, expected) in [
        (401, "GatedRepo", "the hub denies access to org/tiny (401)"),
        (403, "GatedRepo", "the hub denies access to org/tiny (403)"),
        (401, "RepoNotFound", "org/tiny does not exist on the hub:"),
        (404, "RepoNotFound", "org/tiny does not exist on the hub:"),
        (404, "RevisionNotFound", "org/tiny@main does not exist on the hub:"),
        (404, "EntryNotFound", "org/tiny on the hub has no config.json"),
        (404, "", "org/tiny does not exist on the hub:"),
        (418, "", "cannot fetch org/tiny from the hub: it answers 418"),
    ] {
        let server = HubServer::with(Answers { status, code, ..Answers::new(&[]) })?;
        let said = resolve(&hub(&server, &cache)).expect_err("refused").to_string();
        assert!(said.starts_with(expected), "{said}");
        // A repository without config.json may have an adapter.
        let asked = if code == "EntryNotFound" { 2 } else { 1 };
        assert_eq!(server.requests(), asked, "{status} is not tried again");
    }
    Ok(())
}

#[test]
fn content_that_has_not_changed_is_not_downloaded_again() -> Outcome {
    let cache = tempfile::tempdir()?;
    let server = HubServer::with(Answers::new(&MODEL))?;
    let first = resolve(&hub(&server, &cache))?;
    drop(server);
    let commit = "fedcba9876543210fedcba9876543210fedcba98";
    let server = HubServer::with(Answers { commit, ..Answers::new(&MODEL) })?;
    let second = resolve(&hub(&server, &cache))?;
    assert_eq!((first.parent(), second.file_name()), (second.parent(), Some(commit.as_ref())));
    assert_eq!(weights(&second)?, "weights");
    assert!(server.log().iter().all(|request| request.method == "HEAD"));
    assert_eq!(fs::read_to_string(repo(&cache).join("refs/main"))?, commit);
    Ok(())
}

#[test]
fn offline_mode_asks_nobody() -> Outcome {
    let (server, cache) = (HubServer::with(Answers::new(&MODEL))?, tempfile::tempdir()?);
    let offline = Hub { offline: true, ..hub(&server, &cache) };
    let said = resolve(&offline).expect_err("nothing there").to_string();
    assert!(said.starts_with("config.json of org/tiny is not in the cache"), "{said}");
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
    assert_eq!(server.requests(), 0);
    let online = resolve(&hub(&server, &cache))?;
    let before = server.requests();
    assert_eq!((resolve(&offline)?, server.requests()), (online, before));
    Ok(())
}

/// What `snapshot_download` in Python leaves: no markers of absent files.
#[test]
fn a_download_of_huggingface_hub_is_found() -> Outcome {
    let cache = tempfile::tempdir()?;
    let repo = repo(&cache);
    let snapshot = repo.join("snapshots").join(COMMIT);
    for folder in [&snapshot, &repo.join("blobs"), &repo.join("refs")] {
        fs::create_dir_all(folder)?;
    }
    for (file, text) in &MODEL[..2] {
        fs::write(repo.join("blobs").join(file), text)?;
        symlink(format!("../../blobs/{file}"), snapshot.join(file))?;
    }
    fs::write(repo.join("refs/main"), COMMIT)?;
    let offline = Hub { hub_cache: Some(cache.path().into()), offline: true, ..Hub::default() };
    let said = resolve(&offline).expect_err("no weights").to_string();
    assert!(said.starts_with("model.safetensors of org/tiny is not in the cache"), "{said}");
    fs::write(snapshot.join("model.safetensors"), "weights")?;
    assert_eq!(resolve(&offline)?, snapshot);

    // With a hub, what is there is not downloaded again.
    let server = HubServer::with(Answers::new(&MODEL))?;
    assert_eq!(resolve(&hub(&server, &cache))?, snapshot);
    assert!(server.log().iter().all(|request| request.method == "HEAD"));
    Ok(())
}

#[test]
fn a_busy_hub_is_asked_again() -> Outcome {
    let cache = tempfile::tempdir()?;
    let server = HubServer::with(Answers { busy: 2, ..Answers::new(&MODEL) })?;
    let first = resolve(&hub(&server, &cache))?;
    // What is in the cache is not waited for.
    let server = HubServer::with(Answers { status: 503, ..Answers::new(&[]) })?;
    assert_eq!((resolve(&hub(&server, &cache))?, server.requests()), (first, 1));
    let said = hub(&server, &cache).resolve("hf:org/other", &|_| ()).expect_err("busy").to_string();
    assert!(said.starts_with("cannot fetch org/other from the hub: it answers 503"), "{said}");
    assert_eq!(server.requests(), 5);
    Ok(())
}

#[test]
fn headers_do_not_lead_out_of_the_cache() -> Outcome {
    let cache = tempfile::tempdir()?;
    let server = HubServer::with(Answers { commit: "../../../evil", ..Answers::new(&MODEL) })?;
    let said = resolve(&hub(&server, &cache)).expect_err("evil").to_string();
    assert!(said.contains("not the answer of a hub"), "{said}");
    assert_eq!(fs::read_dir(cache.path())?.count(), 0);
    for endpoint in ["huggingface.co", "ftp://x", "localhost:80", ""] {
        let hub = Hub { endpoint: endpoint.into(), ..hub(&server, &cache) };
        let said = resolve(&hub).expect_err("no hub").to_string();
        assert!(said.contains(&format!("'{endpoint}' is not the address of a hub")), "{said}");
    }
    Ok(())
}

#[test]
fn two_at_once_download_once() -> Outcome {
    let (server, cache) = (HubServer::with(Answers::new(&MODEL))?, tempfile::tempdir()?);
    let hub = hub(&server, &cache);
    let (one, two) = thread::scope(|scope| {
        let other = scope.spawn(|| resolve(&hub));
        (resolve(&hub), other.join())
    });
    assert_eq!(one?, two.map_err(|_| "the other thread panicked")??);
    for (file, _) in MODEL {
        assert_eq!(server.downloads(file), 1, "{file}");
    }
    Ok(())
}
