//! Real processes: ends, limits, trees, output.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use botmaster::core::ids::BuildId;
use botmaster::protocol::json_v1::*;
use botmaster::worker::process::{Mark, end_marked};

use crate::shop::*;

fn error_text(outcome: &Outcome) -> &str {
    let Outcome::Error(text) = outcome else { panic!("an error: {outcome:?}") };
    text
}

#[tokio::test]
async fn exit_status_and_signal_are_reported_exactly() {
    let shop = Shop::new();
    assert_eq!(shop.sh("exit 0").await.0.outcome, Outcome::Exit(0));
    assert_eq!(shop.sh("exit 77").await.0.outcome, Outcome::Exit(77));
    assert_eq!(shop.sh("kill -SEGV $$").await.0.outcome, Outcome::Signal(11));
    let (ended, bench) = shop.run(argv(&["printf", "%s|", "a b", "$HOME", "*"])).await;
    assert_eq!(ended.outcome, Outcome::Exit(0));
    assert_eq!(bench.text(), "a b|$HOME|*|", "no shell sees the arguments");
}

#[tokio::test]
async fn fb07_a_missing_program_is_an_error_that_names_it_and_the_path() {
    let shop = Shop::new();
    let (ended, _) = shop.run(argv(&["no-such-program-9"])).await;
    let text = error_text(&ended.outcome);
    assert!(text.contains("no-such-program-9"), "{text}");
    assert!(text.contains(&std::env::var("PATH").unwrap()), "{text}");
    let (ended, _) = shop.run(argv(&["./not-here"])).await;
    assert!(error_text(&ended.outcome).contains("./not-here"));
    std::fs::write(shop.workdir().join("plain"), "x").unwrap();
    let (ended, _) = shop.run(argv(&["./plain"])).await;
    assert!(error_text(&ended.outcome).contains("executable"), "{ended:?}");
}

#[tokio::test]
async fn steps_get_their_folder_their_environment_and_no_input() {
    let shop = Shop::new();
    let work = Work::Shell(ShellArgs {
        shell: Some("pwd; echo \"$GREETING\"; cat; echo \"$BOTMASTER_COMMAND\"".into()),
        workdir: Some("deep/er".into()),
        env: [("GREETING".into(), "hé".into()), ("BOTMASTER_COMMAND".into(), "mine".into())].into(),
        ..ShellArgs::default()
    });
    let (ended, bench) = shop.run(work).await;
    assert_eq!(ended.outcome, Outcome::Exit(0));
    let dir = shop.dir.path().canonicalize().unwrap().join("a/deep/er");
    let expected = format!("{}\nhé\nc-1-0@{}\n", dir.display(), shop.instance);
    assert_eq!(bench.text(), expected);
}

#[tokio::test]
async fn fl13_a_link_does_not_lead_a_step_out_of_its_folder() {
    let shop = Shop::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(shop.dir.path().join("a")).unwrap();
    std::os::unix::fs::symlink(outside.path(), shop.dir.path().join("a/out")).unwrap();
    let work = |workdir: &str| {
        Work::Shell(ShellArgs {
            shell: Some("touch here".into()),
            workdir: Some(workdir.into()),
            ..ShellArgs::default()
        })
    };
    for workdir in ["out", "out/new", "../x", "/tmp"] {
        let (ended, _) = shop.run(work(workdir)).await;
        assert!(error_text(&ended.outcome).contains(workdir), "{ended:?}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn fr16_silence_ends_the_step_and_output_keeps_it_alive() {
    let shop = Shop::new();
    let work = |line: &str, timeout_ms, max_time_ms| {
        Work::Shell(ShellArgs {
            shell: Some(line.into()),
            timeout_ms,
            max_time_ms,
            ..ShellArgs::default()
        })
    };
    let (ended, bench) = shop.run(work("echo begin; sleep 60", Some(300), None)).await;
    let what = "no_output".to_owned();
    assert_eq!(ended.outcome, Outcome::Timeout { what, after_s: 1 });
    assert_eq!(bench.text(), "begin\n");
    let talk = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.7; done";
    let (ended, _) = shop.run(work(talk, Some(3000), None)).await;
    assert_eq!(ended.outcome, Outcome::Exit(0));
    let talk = "while :; do echo on; sleep 0.1; done";
    let (ended, _) = shop.run(work(talk, Some(30_000), Some(1000))).await;
    assert_eq!(ended.outcome, Outcome::Timeout { what: "total".into(), after_s: 1 });
}

#[tokio::test]
async fn a_step_that_waits_for_its_window_is_not_silent() {
    let shop = Shop::new();
    let work = Work::Shell(ShellArgs {
        shell: Some("head -c 300000 /dev/zero; echo end".into()),
        timeout_ms: Some(300),
        ..ShellArgs::default()
    });
    let mut bench = shop.begin(work, 100_000);
    while bench.output.len() < 100_000 {
        assert!(bench.step().await.is_none());
    }
    // Nobody allows more for longer than the limit.
    tokio::time::sleep(Duration::from_millis(900)).await;
    bench.handle.allow(u64::MAX);
    let ended = bench.finish().await;
    assert_eq!(ended.outcome, Outcome::Exit(0));
    assert_eq!(bench.output.len(), 300_004);
}

#[tokio::test]
async fn fl06_never_more_is_read_than_allowed() {
    let shop = Shop::new();
    let mut bench = shop.begin(shell("head -c 1000000 /dev/zero"), 70_000);
    while bench.output.len() < 70_000 {
        assert!(bench.step().await.is_none());
    }
    for allowed in [70_001, 200_000, 1_000_000] {
        bench.handle.allow(allowed);
        while (bench.output.len() as u64) < allowed {
            assert!(bench.step().await.is_none());
        }
        assert_eq!(bench.output.len() as u64, allowed);
    }
    // Whether a pipe has ended shows only to who may read from it.
    bench.handle.allow(u64::MAX);
    assert_eq!(bench.finish().await.outcome, Outcome::Exit(0));
}

/// A child in the group, one in a session of its own, one that cleared its
/// environment, one that ignores TERM: all of them go.
#[tokio::test]
async fn fr13_the_whole_tree_is_ended() {
    let shop = Shop::new();
    let line = "sleep 1000 & echo pid $!; \
                setsid sh -c 'echo pid $$; exec sleep 1000' & \
                env -i setsid /bin/sh -c 'echo pid $$; exec sleep 1000' & \
                sh -c 'trap \"\" TERM; echo pid $$; while :; do sleep 1; done' & \
                wait";
    let mut bench = shop.begin(shell(line), u64::MAX);
    while bench.text().matches('\n').count() < 4 {
        assert!(bench.step().await.is_none(), "ended too early: {}", bench.text());
    }
    let text = bench.text();
    let pids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("pid ")).collect();
    assert_eq!(pids.len(), 4, "{text}");
    assert!(pids.iter().all(|pid| lives(pid)));
    bench.kill("enough");
    let ended = bench.finish().await;
    assert_eq!(ended.outcome, Outcome::Killed("enough".into()));
    assert_eq!(ended.note, "");
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn term_comes_before_kill_and_the_last_words_are_kept() {
    let shop = Shop::new();
    let line = "trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut bench = shop.begin(shell(line), u64::MAX);
    bench.wait_for("ready").await;
    bench.kill("stop");
    assert_eq!(bench.finish().await.outcome, Outcome::Killed("stop".into()));
    assert!(bench.text().contains("cleaned"), "{}", bench.text());
}

#[tokio::test]
async fn a_background_child_that_holds_the_output_does_not_hang_the_step() {
    let shop = Shop::new();
    let begun = Instant::now();
    let (ended, bench) = shop.sh("setsid sleep 1000 & echo pid $!; exit 4").await;
    assert_eq!(ended.outcome, Outcome::Exit(4));
    assert!(ended.note.contains("background"), "{ended:?}");
    let text = bench.text();
    gone(text.trim().strip_prefix("pid ").unwrap()).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_quiet_background_child_stays_until_the_build_is_swept() {
    let shop = Shop::new();
    let (ended, bench) = shop.sh("sleep 1000 >/dev/null 2>&1 & echo $!").await;
    assert_eq!((ended.outcome, ended.note), (Outcome::Exit(0), String::new()));
    let text = bench.text();
    let pid = text.trim();
    assert!(lives(pid));
    let mark = Mark::Build { build: BuildId(1), instance: shop.instance.clone() };
    assert_eq!(end_marked(mark, BTreeMap::new(), Duration::from_millis(500)).await, 1);
    gone(pid).await;
}

#[tokio::test]
async fn first_output_comes_at_once_and_both_channels_are_told_apart() {
    let shop = Shop::new();
    let mut bench = shop.begin(shell("echo out; sleep 0.5; echo err >&2; sleep 100"), u64::MAX);
    let begun = Instant::now();
    bench.wait_for("err").await;
    assert!(begun.elapsed() < Duration::from_secs(50), "long before the end");
    let channels: Vec<(char, usize)> = bench.pieces.iter().map(|&(ch, n, _)| (ch, n)).collect();
    assert_eq!(channels, [('o', 4), ('e', 4)]);
    assert!(bench.pieces[1].2 >= bench.pieces[0].2 + 100, "{:?}", bench.pieces);
    bench.kill("seen");
    bench.finish().await;
}

/// What follows the first output is not held back until there is more.
#[tokio::test]
async fn output_soon_after_the_first_comes_without_waiting_for_more() {
    let shop = Shop::new();
    let mut bench = shop.begin(shell("echo a; sleep 0.02; echo b; sleep 1000"), u64::MAX);
    bench.wait_for("b").await;
    bench.kill("seen");
    assert_eq!(bench.finish().await.outcome, Outcome::Killed("seen".into()));
}

#[tokio::test]
async fn a_burst_of_lines_travels_in_few_pieces() {
    let shop = Shop::new();
    let line = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done";
    let begun = Instant::now();
    let (_, bench) = shop.sh(line).await;
    assert_eq!(bench.text().lines().count(), 100);
    // The first, the last, and one for each 200 ms between them.
    let most = 2 + begun.elapsed().as_millis() / 200;
    assert!(bench.pieces.len() as u128 <= most, "{:?}", bench.pieces);
}

#[tokio::test]
async fn fl05_twenty_megabytes_and_raw_bytes_come_through_exactly() {
    let shop = Shop::new();
    let line = "i=0; while [ $i -lt 20 ]; do head -c 1048576 /dev/urandom | tee -a copy; \
                i=$((i+1)); done";
    let (ended, bench) = shop.sh(line).await;
    assert_eq!(ended.outcome, Outcome::Exit(0));
    let copy = std::fs::read(shop.workdir().join("copy")).unwrap();
    assert_eq!(copy.len(), 20 * 1024 * 1024);
    assert!(bench.output == copy, "the same bytes in the same order");
    assert!(bench.pieces.iter().all(|&(_, length, _)| length <= LOG_BATCH));
}

#[tokio::test]
async fn text_is_not_cut_inside_a_character() {
    let shop = Shop::new();
    let line = "i=0; while [ $i -lt 4000 ]; do printf '1234567890ééééééééééééééééé€'; \
                i=$((i+1)); done";
    let mut bench = shop.begin(shell(line), u64::MAX);
    let mut whole = 0;
    let ended = loop {
        let before = bench.output.len();
        if let Some(ended) = bench.step().await {
            break ended;
        }
        let piece = &bench.output[before..];
        if piece.len() > LOG_BATCH - 4 {
            assert!(std::str::from_utf8(piece).is_ok());
            whole += 1;
        }
    };
    assert_eq!(ended.outcome, Outcome::Exit(0));
    assert_eq!(bench.text().chars().filter(|&c| c == '€').count(), 4000);
    // On a slow machine batches may all go by time; then nothing was cut.
    assert!(whole > 0 || bench.pieces.len() > 3, "{:?}", bench.pieces);
}
