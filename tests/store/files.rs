//! The data folder: who may open it, and what happens when it cannot be
//! written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use botmaster::core::ids::*;
use botmaster::store::logs::{LogStore, SqliteLogs};
use botmaster::store::sqlite::{OpenError, SqliteStore};
use botmaster::store::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rusqlite::Connection;

use crate::logs::{Confirmed, piece, row};
use crate::world::*;

fn refused(dir: &Path) -> OpenError {
    match SqliteStore::open(dir, never_fatal()) {
        Ok(_) => panic!("{} was opened", dir.display()),
        Err(error) => error,
    }
}

#[test]
fn the_folder_and_its_files_belong_to_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    let (store, _) = open(&data);
    write(&store, declarations()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in std::fs::read_dir(&data).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    store.close();
}

#[test]
fn fm15_a_second_master_is_refused_and_told_who_has_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let text = refused(dir.path()).to_string();
    for part in [&dir.path().display().to_string(), &std::process::id().to_string(), &host] {
        assert!(text.contains(part.as_str()), "{text}");
    }
    store.close();
    open(dir.path()).0.close();
}

#[test]
fn fm16_a_newer_schema_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).0.close();
    let conn = Connection::open(dir.path().join("state.sqlite")).unwrap();
    conn.pragma_update(None, "user_version", 700).unwrap();
    drop(conn);
    let error = refused(dir.path());
    let text = error.to_string();
    let OpenError::Newer { found: 700, known, .. } = error else { panic!("{text}") };
    assert!(text.contains("version 700") && text.contains(&format!("up to {known}")), "{text}");
}

#[test]
fn fm17_a_migration_happens_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE steps (id INTEGER)").unwrap();
    assert!(matches!(refused(dir.path()), OpenError::Failed { .. }));
    let tables: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).unwrap();
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!((tables, version), (1, 0));
    conn.execute_batch("DROP TABLE steps").unwrap();
    drop(conn);
    open(dir.path()).0.close();
}

#[test]
fn fd10_a_file_that_is_no_database_is_named_with_the_repair() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state.sqlite"), [b'x'; 8192]).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(".recover"), "{error}");
}

#[test]
fn a_data_folder_that_is_a_file_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, "").unwrap();
    let text = refused(&path).to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
}

/// Runs an ignored test of this program in a process of its own.
fn child(program: &Path, test: &str, dir: &Path) -> Command {
    // Without this the first write beyond a file-size limit would end it.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(program)
        .args(["--ignored", "--exact", test, "--nocapture", "--test-threads=1"])
        .env("STORE_DIR", dir);
    command
}

fn passed(mut child: Command) {
    let out = child.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{out:?}");
}

fn dir_of_parent() -> PathBuf {
    std::env::var_os("STORE_DIR").expect("STORE_DIR is set by the parent").into()
}

#[test]
#[ignore = "runs in a process of its own, started by another test"]
fn child_may_not_write() {
    let dir = dir_of_parent();
    let error = refused(&dir);
    let OpenError::Unwritable { path, .. } = &error else { panic!("{error}") };
    assert!(path.starts_with(&dir));
    let text = error.to_string();
    assert!(text.contains(&dir.display().to_string()) && text.contains("right to write"), "{text}");
}

#[test]
fn a_folder_that_may_not_be_written_is_an_error_with_path_and_fix() {
    let dir = tempfile::tempdir().unwrap();
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open_to_all).unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Where another user can run it, too.
    let program = dir.path().join("program");
    let own = std::env::current_exe().unwrap();
    if std::fs::hard_link(&own, &program).is_err() {
        std::fs::copy(&own, &program).unwrap();
    }
    let mut child = child(&program, "files::child_may_not_write", &data);
    child.current_dir(dir.path());
    if nix::unistd::geteuid().is_root() {
        child.gid(65_534).uid(65_534);
    }
    passed(child);
}

fn limit_files(bytes: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes, hard).unwrap();
}

/// Bytes that do not shrink.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
#[ignore = "runs in a process of its own, started by another test"]
fn child_runs_out_of_room() {
    let dir = dir_of_parent();
    let (store, events) = open(&dir);
    let logs = SqliteLogs::open(&dir, events, never_fatal()).unwrap();
    write(&store, declarations()).unwrap();
    limit_files(512 * 1024);

    let mut stored = 0;
    let began = Instant::now();
    let error = loop {
        assert!(began.elapsed() < DEADLINE);
        match write(&store, vec![Op::AddBuildset(submission(&[BuilderId(1)]))]) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_transient(), "{error}");

    let text = noise(2 * 1024 * 1024);
    let confirmed = Confirmed::new();
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(0), &text, &confirmed));
    let (tell, told) = std::sync::mpsc::channel();
    LogStore::close(&logs, LogId(1), Some(1), Box::new(move |closed| tell.send(closed).unwrap()));
    let closed = told.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(&closed, Err(error) if error.is_transient()), "{closed:?}");
    assert!(confirmed.all().is_empty(), "confirmed what was not written");

    // There is room again: all goes on by itself.
    limit_files(u64::MAX);
    confirmed.wait_for(LogId(1), text.len() as u64);
    let raw: Vec<u8> = logs.reader().raw(&row(1), None).flat_map(Result::unwrap).collect();
    assert_eq!(raw, text);
    write(&store, vec![Op::AddBuildset(submission(&[BuilderId(1)]))]).unwrap();
    assert_eq!(load(&store, BuilderId(1)).queued.len(), stored + 1);
    logs.close();
    store.close();
    assert_eq!(load(&open(&dir).0, BuilderId(1)).queued.len(), stored + 1);
}

#[test]
fn fl07_fd08_a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    passed(child(&own, "files::child_runs_out_of_room", dir.path()));
}

#[test]
fn the_log_store_refuses_a_newer_schema_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, events) = open(dir.path());
    SqliteLogs::open(dir.path(), events.clone(), never_fatal()).unwrap().close();
    let conn = Connection::open(dir.path().join("logs.sqlite")).unwrap();
    conn.pragma_update(None, "user_version", 9).unwrap();
    drop(conn);
    let fatal = Arc::new(|_: &str| {});
    assert!(matches!(
        SqliteLogs::open(dir.path(), events, fatal),
        Err(OpenError::Newer { found: 9, .. })
    ));
    store.close();
}

#[test]
fn fm17_the_data_of_the_first_schema_are_upgraded() {
    let dir = tempfile::tempdir().unwrap();
    let first = include_str!("../../migrations/sqlite/0001_first.sql");
    {
        let conn = rusqlite::Connection::open(dir.path().join("state.sqlite")).unwrap();
        conn.execute_batch(first).unwrap();
        conn.execute_batch(
            "INSERT INTO workers (name, configured, incarnation) VALUES ('w1', 1, 7); \
             PRAGMA user_version = 1;",
        )
        .unwrap();
    }
    let (store, _) = open(dir.path());
    let Ok(outcomes) =
        write(&store, vec![Op::DeclareWorker { name: "w1".into() }, Op::ListInstances])
    else {
        panic!("the upgraded store answers")
    };
    let [OpOutcome::Worker(row), OpOutcome::Instances(none)] = outcomes.as_slice() else {
        panic!("{outcomes:?}")
    };
    assert_eq!((row.incarnation, none.len()), (Incarnation(7), 0));
    store.close();
}
