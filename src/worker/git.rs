//! The checkout step: a sequence of `git` commands through the same process
//! layer as every other step, into the same log.
//!
//! Deliberately absent: credentials. What git needs it takes from the worker's
//! own set-up; it is never asked for on a terminal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::protocol::json_v1::{GitArgs, Outcome};

use super::folders;
use super::process::{Context, Finished, Limits, Program, run};

/// Name of the property that carries the revision that was checked out.
const GOT_REVISION: &str = "got_revision";

/// Lock files that a killed git leaves behind; nobody else works in the folder.
const LOCKS: [&str; 5] =
    ["index.lock", "shallow.lock", "HEAD.lock", "config.lock", "packed-refs.lock"];

/// Words by which git says that its own files are damaged.
const DAMAGE: [&str; 6] =
    ["corrupt", "bad object", "not a git repository", "unable to read", "invalid sha1", "inflate"];

/// A checkout under way.
struct Checkout<'c> {
    args: GitArgs,
    dir: PathBuf,
    env: BTreeMap<String, String>,
    limits: Limits,
    context: &'c Context,
}

/// Why a checkout stops before its end.
enum Halt {
    /// Git's own files in the folder are damaged.
    Damaged(Finished),
    /// Everything else.
    Failed(Finished),
}

/// Brings the source that `args` names into its folder below `root`.
pub(crate) async fn checkout(root: &Path, args: GitArgs, context: &Context) -> Finished {
    let workdir = args.workdir.as_deref().unwrap_or(folders::DEFAULT_WORKDIR);
    let dir = match folders::make_inside(root, workdir) {
        Ok(dir) => dir,
        Err(error) => return Finished::error(format!("folder `{workdir}` of the step: {error}")),
    };
    // What is printed below may come before the first process.
    context.sink.started().await;
    let limits = Limits::starting_now(args.timeout_ms, args.max_time_ms);
    let env = environment(&args.env);
    let checkout = Checkout { args, dir, env, limits, context };
    match checkout.carry_out(false).await {
        Ok(finished) | Err(Halt::Failed(finished)) => finished,
        Err(Halt::Damaged(_)) => {
            context.sink.print("The folder's repository is damaged: starting over.\n").await;
            match checkout.carry_out(true).await {
                Ok(finished) | Err(Halt::Damaged(finished) | Halt::Failed(finished)) => finished,
            }
        }
    }
}

/// Nobody answers questions on a worker: git and ssh fail instead of asking.
fn environment(given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let quiet = [
        ("GIT_TERMINAL_PROMPT", "0"),
        ("SSH_ASKPASS", "/bin/false"),
        ("SSH_ASKPASS_REQUIRE", "force"),
    ];
    let mut env: BTreeMap<String, String> = quiet
        .into_iter()
        .filter(|(name, _)| std::env::var_os(name).is_none())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    env.extend(given.clone());
    env.insert("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned());
    env
}

impl Checkout<'_> {
    async fn carry_out(&self, afresh: bool) -> Result<Finished, Halt> {
        if afresh || !self.is_usable().await {
            self.begin_afresh().await?;
        }
        remove_locks(&self.dir);
        let target = self.fetch().await?;
        self.git(&["checkout", "--force", "--detach", &target]).await?;
        if self.args.mode == "clean" {
            self.git(&["clean", "-ffdx"]).await?;
        }
        if self.args.submodules {
            self.submodules().await?;
        }
        let revision = self.quiet(&["rev-parse", "--verify", "HEAD"]).await.ok_or_else(|| {
            Halt::Failed(Finished::error("git does not say which revision it checked out".into()))
        })?;
        self.context.sink.print(&format!("{GOT_REVISION}: {revision}\n")).await;
        let mut finished = Finished::new(Outcome::Exit(0));
        finished.properties.insert(GOT_REVISION.to_owned(), revision);
        Ok(finished)
    }

    /// Whether the folder holds a repository, and the right one.
    async fn is_usable(&self) -> bool {
        // Without this look git would find a repository further up.
        if !self.dir.join(".git").is_dir() {
            return false;
        }
        let url = self.quiet(&["config", "--local", "--get", "remote.origin.url"]).await;
        if url.as_deref() != Some(self.args.repository.as_str()) {
            let text = "The folder holds something else than this repository: starting over.\n";
            self.context.sink.print(text).await;
            return false;
        }
        true
    }

    async fn begin_afresh(&self) -> Result<(), Halt> {
        let dir = self.dir.clone();
        let emptied = tokio::task::spawn_blocking(move || empty(&dir)).await;
        if let Ok(Err(error)) = emptied {
            let text = format!("folder `{}` cannot be emptied: {error}", self.dir.display());
            return Err(Halt::Failed(Finished::error(text)));
        }
        self.git(&["init", "--quiet", "."]).await?;
        self.git(&["remote", "add", "origin", &self.args.repository]).await
    }

    /// Fetches and answers with what to check out.
    async fn fetch(&self) -> Result<String, Halt> {
        let branch = self.args.branch.as_deref().unwrap_or("HEAD");
        let depth = self.args.depth.map(|depth| format!("--depth={depth}"));
        let mut line = vec!["fetch", "--force", "--progress"];
        match &depth {
            Some(depth) => line.extend([depth.as_str(), "--no-tags"]),
            // What an earlier build fetched with a depth becomes whole again.
            None if self.is_shallow() => line.extend(["--tags", "--unshallow"]),
            None => line.push("--tags"),
        }
        line.extend(["origin", branch]);
        self.git(&line).await?;
        let Some(revision) = self.args.revision.as_deref() else {
            return Ok("FETCH_HEAD".to_owned());
        };
        if self.has(revision).await {
            return Ok(revision.to_owned());
        }
        let text = format!("Revision {revision} did not come with that: fetching all there is.\n");
        self.context.sink.print(&text).await;
        let mut line = vec!["fetch", "--force", "--progress", "--tags"];
        if self.is_shallow() {
            line.push("--unshallow");
        }
        line.extend(["origin", "+refs/heads/*:refs/remotes/origin/*"]);
        self.git(&line).await?;
        if !self.has(revision).await {
            // It may be on no branch, as those of pull requests are.
            self.git(&["fetch", "--force", "--progress", "origin", revision]).await?;
        }
        Ok(revision.to_owned())
    }

    async fn submodules(&self) -> Result<(), Halt> {
        self.git(&["submodule", "sync", "--recursive"]).await?;
        self.git(&["submodule", "update", "--init", "--recursive", "--force"]).await?;
        if self.args.mode == "clean" {
            self.git(&["submodule", "foreach", "--recursive", "git clean -ffdx"]).await?;
        }
        Ok(())
    }

    fn is_shallow(&self) -> bool {
        self.dir.join(".git/shallow").exists()
    }

    async fn has(&self, revision: &str) -> bool {
        self.quiet(&["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")])
            .await
            .is_some()
    }

    fn program(&self, arguments: &[&str], shown: bool) -> Program {
        let argv = std::iter::once("git").chain(arguments.iter().copied());
        Program {
            argv: argv.map(str::to_owned).collect(),
            dir: self.dir.clone(),
            env: self.env.clone(),
            shown,
        }
    }

    /// Runs git with its command line and output in the log.
    async fn git(&self, arguments: &[&str]) -> Result<(), Halt> {
        let shown: Vec<String> = arguments.iter().map(|text| without_password(text)).collect();
        let line = format!("git {}", shown.join(" "));
        self.context.sink.print(&format!("$ {line}\n")).await;
        let ran = run(self.program(arguments, true), &self.limits, self.context).await;
        let Outcome::Exit(code) = ran.finished.outcome else {
            return Err(Halt::Failed(ran.finished));
        };
        if code == 0 {
            return Ok(());
        }
        let words = own_words(&ran.tails.err);
        let command = arguments.first().copied().unwrap_or_default();
        let text = format!("`git {command}` ended with status {code}: {words}");
        let mut finished = Finished::new(Outcome::Error(text));
        finished.note = ran.finished.note;
        let damaged = DAMAGE.iter().any(|word| words.contains(word));
        Err(if damaged { Halt::Damaged(finished) } else { Halt::Failed(finished) })
    }

    /// Asks git something: the first line of its answer, or none when it says
    /// no. The log does not show it.
    async fn quiet(&self, arguments: &[&str]) -> Option<String> {
        let ran = run(self.program(arguments, false), &self.limits, self.context).await;
        if ran.finished.outcome != Outcome::Exit(0) {
            return None;
        }
        Some(String::from_utf8_lossy(&ran.tails.out).lines().next()?.trim().to_owned())
    }
}

/// The lines in which git says what is wrong, or its last ones.
fn own_words(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    // Progress is written over itself with carriage returns.
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default())
        .filter(|line| !line.trim().is_empty())
        .collect();
    let telling = |line: &&&str| line.starts_with("fatal:") || line.starts_with("error:");
    let mut told: Vec<&str> = lines.iter().filter(telling).copied().collect();
    if told.is_empty() {
        told = lines.iter().rev().take(3).rev().copied().collect();
    }
    told.join(" / ")
}

/// `text` without the password of a URL: it is shown to people.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            let masked = if user.len() < authority.len() - host.len() - 1 { ":…" } else { "" };
            format!("{scheme}://{user}{masked}@{host}{path}")
        }
        None => text.to_owned(),
    }
}

fn remove_locks(dir: &Path) {
    for lock in LOCKS {
        // Usually there is none.
        let _ = std::fs::remove_file(dir.join(".git").join(lock));
    }
}

/// Removes all that is in `dir`, but not `dir`.
fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
