//! The worker as a process of its own, for what only a process can be given:
//! signals and the end of standard input. This test binary starts itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use botmaster::worker::{WorkerOptions, run};

const VARIABLE: &str = "BOTMASTER_TEST_WORKER";

pub fn options(master: &str, dir: &Path) -> WorkerOptions {
    let token_file = dir.join("token");
    std::fs::write(&token_file, "s3cret\n").unwrap();
    WorkerOptions {
        master: master.into(),
        name: "w1".into(),
        token_file,
        dir: dir.join("work"),
        max_builds: Some(2),
        stop_with_stdin: false,
        keeper: Some(env!("CARGO_BIN_EXE_botmaster").into()),
        labels: [("os".to_owned(), "test".to_owned())].into(),
    }
}

/// Not a test of its own: the body of [`spawn`]'s process.
#[tokio::test]
#[ignore = "other tests start it as a process"]
async fn worker_process() {
    let setup = std::env::var(VARIABLE).expect("started by another test");
    let (master, dir) = setup.split_once(' ').unwrap();
    let options = WorkerOptions { stop_with_stdin: true, ..options(master, Path::new(dir)) };
    let result = run(options).await;
    // Other tests of this binary must not go on in this process.
    std::process::exit(if result.is_ok() { 0 } else { 9 });
}

/// A worker process whose standard input the caller holds.
pub fn spawn(master: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "entry::worker_process", "--nocapture", "--ignored"])
        .env(VARIABLE, format!("{master} {}", dir.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The built program as a worker whose standard input the caller holds.
pub fn program(master: &str, dir: &Path, envs: &[(&str, &str)]) -> Child {
    let options = options(master, dir);
    Command::new(env!("CARGO_BIN_EXE_botmaster"))
        .args(["worker", "--stop-with-stdin", "--name", "w1", "--max-builds", "2", "--master"])
        .arg(master)
        .arg("--token-file")
        .arg(options.token_file)
        .arg("--dir")
        .arg(options.dir)
        .env_remove("BOTMASTER_CRASH_POINT")
        .env("BOTMASTER_LOG", "info")
        .envs(envs.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}
