//! Checkouts of real repositories on the local disk.

use std::path::Path;
use std::process::Command;

use botmaster::protocol::json_v1::*;
use botmaster::worker::agent::Ended;

use crate::shop::*;

/// A repository to check out.
struct Origin {
    dir: tempfile::TempDir,
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Origin {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "-b", "main"]);
        let origin = Self { dir };
        origin.commit("first");
        origin
    }

    fn path(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    /// Commits `text` in the file `file`; answers with the revision.
    fn commit(&self, text: &str) -> String {
        std::fs::write(self.dir.path().join("file"), text).unwrap();
        git(self.dir.path(), &["add", "-A"]);
        git(self.dir.path(), &["commit", "-q", "-m", text]);
        git(self.dir.path(), &["rev-parse", "HEAD"])
    }

    fn args(&self) -> GitArgs {
        // Submodules from the local disk are refused by git's own default.
        let env = [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "protocol.file.allow"),
            ("GIT_CONFIG_VALUE_0", "always"),
        ];
        GitArgs {
            repository: self.path(),
            mode: "clean".into(),
            env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..GitArgs::default()
        }
    }
}

async fn checkout(shop: &Shop, args: GitArgs) -> (Ended, String) {
    let (ended, bench) = shop.run(Work::Git(args)).await;
    (ended, bench.text())
}

fn got(ended: &Ended) -> &str {
    assert_eq!(ended.outcome, Outcome::Exit(0), "{ended:?}");
    ended.properties.get("got_revision").expect("got_revision")
}

fn file(shop: &Shop, name: &str) -> Option<String> {
    std::fs::read_to_string(shop.workdir().join(name)).ok()
}

#[tokio::test]
async fn first_checkout_and_then_what_is_new() {
    let (shop, origin) = (Shop::new(), Origin::new());
    let first = git(origin.dir.path(), &["rev-parse", "HEAD"]);
    let (ended, log) = checkout(&shop, origin.args()).await;
    assert_eq!(got(&ended), first);
    assert_eq!(log.lines().last(), Some(format!("got_revision: {first}").as_str()));
    assert!(log.contains("$ git fetch"), "{log}");
    assert_eq!(file(&shop, "file").as_deref(), Some("first"));
    let second = origin.commit("second");
    let (ended, log) = checkout(&shop, origin.args()).await;
    assert_eq!(got(&ended), second);
    assert!(!log.contains("$ git init"), "what is there is used: {log}");
    assert_eq!(file(&shop, "file").as_deref(), Some("second"));
}

#[tokio::test]
async fn clean_leaves_nothing_and_incremental_leaves_what_builds_made() {
    let (shop, origin) = (Shop::new(), Origin::new());
    std::fs::write(origin.dir.path().join(".gitignore"), "*.o\n").unwrap();
    origin.commit("first");
    checkout(&shop, origin.args()).await;
    let litter = || {
        std::fs::create_dir_all(shop.workdir().join("made/.git")).unwrap();
        std::fs::write(shop.workdir().join("made/x"), "x").unwrap();
        std::fs::write(shop.workdir().join("x.o"), "x").unwrap();
        std::fs::write(shop.workdir().join("file"), "changed by the build").unwrap();
    };
    litter();
    let incremental = GitArgs { mode: "incremental".into(), ..origin.args() };
    let (ended, _) = checkout(&shop, incremental).await;
    got(&ended);
    assert_eq!(file(&shop, "file").as_deref(), Some("first"));
    assert!(file(&shop, "x.o").is_some() && file(&shop, "made/x").is_some());
    litter();
    let (ended, _) = checkout(&shop, origin.args()).await;
    got(&ended);
    assert_eq!(file(&shop, "file").as_deref(), Some("first"));
    assert!(file(&shop, "x.o").is_none() && file(&shop, "made/x").is_none());
}

#[tokio::test]
async fn branch_and_revision_are_what_was_asked_for() {
    let (shop, origin) = (Shop::new(), Origin::new());
    let first = git(origin.dir.path(), &["rev-parse", "HEAD"]);
    git(origin.dir.path(), &["checkout", "-q", "-b", "topic"]);
    let topic = origin.commit("on topic");
    git(origin.dir.path(), &["checkout", "-q", "main"]);
    origin.commit("second");
    let args = GitArgs { branch: Some("topic".into()), ..origin.args() };
    assert_eq!(got(&checkout(&shop, args).await.0), topic);
    assert_eq!(file(&shop, "file").as_deref(), Some("on topic"));
    let args = GitArgs { revision: Some(first.clone()), ..origin.args() };
    assert_eq!(got(&checkout(&shop, args).await.0), first);
    assert_eq!(file(&shop, "file").as_deref(), Some("first"));
    // A revision of another branch is found too.
    let args =
        GitArgs { branch: Some("main".into()), revision: Some(topic.clone()), ..origin.args() };
    assert_eq!(got(&checkout(&Shop::new(), args).await.0), topic);
}

#[tokio::test]
async fn a_depth_brings_little_and_an_older_revision_brings_the_rest() {
    let (shop, origin) = (Shop::new(), Origin::new());
    let first = git(origin.dir.path(), &["rev-parse", "HEAD"]);
    for text in ["second", "third", "fourth"] {
        origin.commit(text);
    }
    let shallow = GitArgs { depth: Some(1), ..origin.args() };
    got(&checkout(&shop, shallow.clone()).await.0);
    assert_eq!(git(&shop.workdir(), &["rev-list", "--count", "HEAD"]), "1");
    let args = GitArgs { revision: Some(first.clone()), ..shallow.clone() };
    let (ended, log) = checkout(&shop, args).await;
    assert_eq!(got(&ended), first);
    assert!(log.contains("fetching all there is"), "{log}");
    got(&checkout(&shop, shallow).await.0);
    got(&checkout(&shop, origin.args()).await.0);
    assert_eq!(git(&shop.workdir(), &["rev-list", "--count", "HEAD"]), "4");
}

#[tokio::test]
async fn submodules_come_along_when_asked_for() {
    let (shop, origin, part) = (Shop::new(), Origin::new(), Origin::new());
    git(origin.dir.path(), &["submodule", "--quiet", "add", &part.path(), "part"]);
    origin.commit("with part");
    got(&checkout(&shop, origin.args()).await.0);
    assert!(file(&shop, "part/file").is_none());
    let args = GitArgs { submodules: true, ..origin.args() };
    got(&checkout(&shop, args.clone()).await.0);
    assert_eq!(file(&shop, "part/file").as_deref(), Some("first"));
    std::fs::write(shop.workdir().join("part/litter"), "x").unwrap();
    got(&checkout(&shop, args).await.0);
    assert!(file(&shop, "part/litter").is_none());
}

#[tokio::test]
async fn another_repository_or_a_broken_folder_makes_it_start_over() {
    let (shop, origin, other) = (Shop::new(), Origin::new(), Origin::new());
    got(&checkout(&shop, origin.args()).await.0);
    let revision = other.commit("of the other");
    let (ended, log) = checkout(&shop, other.args()).await;
    assert_eq!(got(&ended), revision);
    assert!(log.contains("starting over"), "{log}");
    std::fs::write(shop.workdir().join(".git/HEAD"), "nonsense").unwrap();
    assert_eq!(got(&checkout(&shop, other.args()).await.0), revision);
    std::fs::write(shop.workdir().join(".git/index.lock"), "").unwrap();
    assert_eq!(got(&checkout(&shop, other.args()).await.0), revision);
    std::fs::remove_dir_all(shop.workdir()).unwrap();
    std::fs::create_dir_all(shop.workdir()).unwrap();
    std::fs::write(shop.workdir().join("stray"), "x").unwrap();
    assert_eq!(got(&checkout(&shop, other.args()).await.0), revision);
    assert!(file(&shop, "stray").is_none());
}

#[tokio::test]
async fn what_git_says_is_in_the_error() {
    let (shop, origin) = (Shop::new(), Origin::new());
    let error = |ended: Ended| match ended.outcome {
        Outcome::Error(text) => text,
        other => panic!("an error: {other:?}"),
    };
    let args = GitArgs { repository: "/no/such/repository".into(), ..origin.args() };
    let text = error(checkout(&shop, args).await.0);
    assert!(text.contains("fatal:") && text.contains("/no/such/repository"), "{text}");
    let args = GitArgs { branch: Some("no-such-branch".into()), ..origin.args() };
    let text = error(checkout(&shop, args).await.0);
    assert!(text.contains("couldn't find remote ref no-such-branch"), "{text}");
    let revision = "0123456789012345678901234567890123456789".to_owned();
    let args = GitArgs { revision: Some(revision.clone()), ..origin.args() };
    let text = error(checkout(&shop, args).await.0);
    assert!(text.contains(&revision), "{text}");
}

#[tokio::test]
async fn passwords_in_urls_are_not_shown_and_nobody_is_asked_for_one() {
    let shop = Shop::new();
    let args =
        GitArgs { repository: "http://me:hunter2@127.0.0.1:1/x".into(), ..Origin::new().args() };
    let (ended, log) = checkout(&shop, args).await;
    assert!(matches!(ended.outcome, Outcome::Error(_)), "{ended:?}");
    assert!(log.contains("me:…@127.0.0.1"), "{log}");
    assert!(!format!("{log}{ended:?}").contains("hunter2"), "{log} {ended:?}");
}

#[tokio::test]
async fn an_interrupt_ends_a_checkout_for_good() {
    let (shop, origin) = (Shop::new(), Origin::new());
    let bench = &mut shop.begin(Work::Git(origin.args()), u64::MAX);
    bench.kill("stopped");
    assert_eq!(bench.finish().await.outcome, Outcome::Killed("stopped".into()));
}
