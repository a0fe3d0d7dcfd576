//! The worker process that `up` looks after, played by small shell programs.

use std::path::Path;
use std::time::{Duration, Instant};

use botmaster::cli::{LocalWorker, StopStage, WorkerNews, supervise};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

struct Supervised {
    news: mpsc::Receiver<WorkerNews>,
    stage: watch::Sender<StopStage>,
    task: JoinHandle<()>,
}

fn start(script: &str, polite: Duration) -> Supervised {
    let worker = LocalWorker {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        dir: None,
        polite,
    };
    let (news, heard) = mpsc::channel(16);
    let (stage, stop) = watch::channel(StopStage::Run);
    Supervised { news: heard, stage, task: tokio::spawn(supervise(worker, news, stop)) }
}

impl Supervised {
    async fn started(&mut self) -> u32 {
        match timeout(Duration::from_secs(10), self.news.recv()).await.unwrap() {
            Some(WorkerNews::Started { pid }) => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    async fn ended(self) {
        timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap();
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until the script has written the file: then its traps are set.
async fn ready(path: &Path) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        assert!(Instant::now() < limit, "the script does not get ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_worker_that_is_asked_leaves_and_is_not_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ready");
    let script =
        format!("trap 'exit 0' TERM; : > {}; while :; do read x || exit 3; done", file.display());
    let mut worker = start(&script, Duration::from_secs(9));
    let pid = worker.started().await;
    ready(&file).await;
    worker.stage.send(StopStage::Politely).unwrap();
    worker.ended().await;
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_worker_that_takes_too_long_loses_its_input_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (file, seen) = (dir.path().join("ready"), dir.path().join("seen"));
    let script =
        format!("trap '' TERM; : > {}; cat; echo end > {}", file.display(), seen.display());
    let mut worker = start(&script, Duration::from_millis(100));
    let pid = worker.started().await;
    ready(&file).await;
    worker.stage.send(StopStage::Politely).unwrap();
    worker.ended().await;
    assert!(!is_alive(pid));
    assert_eq!(std::fs::read_to_string(seen).unwrap(), "end\n");
}

#[tokio::test]
async fn a_worker_that_heeds_nothing_is_killed_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ready");
    let script = format!("trap '' TERM; : > {}; while :; do sleep 0.1; done", file.display());
    let mut worker = start(&script, Duration::from_secs(60));
    let pid = worker.started().await;
    ready(&file).await;
    let begun = Instant::now();
    worker.stage.send(StopStage::AtOnce).unwrap();
    worker.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(!is_alive(pid));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_keeps_dying_is_given_up_after_five_deaths() {
    let mut worker = start("exit 7", Duration::from_secs(5));
    let mut waits = Vec::new();
    loop {
        match worker.news.recv().await.unwrap() {
            WorkerNews::Started { .. } => {}
            WorkerNews::Died { how, again_in } => {
                assert_eq!(how, "exit status: 7");
                waits.push(again_in.as_millis());
            }
            WorkerNews::GaveUp { how } => {
                assert_eq!(how, "exit status: 7");
                break;
            }
        }
    }
    assert_eq!(waits, [200, 400, 800, 1600]);
    worker.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_not_there_is_said() {
    let worker = LocalWorker {
        dir: None,
        program: "/nowhere/botmaster".into(),
        args: Vec::new(),
        polite: Duration::from_secs(1),
    };
    let (news, mut heard) = mpsc::channel(16);
    let (stage, stop) = watch::channel(StopStage::Run);
    let task = tokio::spawn(supervise(worker, news, stop));
    let Some(WorkerNews::Died { how, .. }) = heard.recv().await else {
        panic!("no news");
    };
    assert!(how.starts_with("cannot start /nowhere/botmaster: No such file"), "{how}");
    stage.send(StopStage::Politely).unwrap();
    task.await.unwrap();
}
