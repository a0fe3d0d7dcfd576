//! The built program: `check`, `init`, `token`, help and exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run_in(dir: &Path, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_botmaster"))
        .args(args)
        .current_dir(dir)
        .env_remove("BOTMASTER_CONFIG")
        .env_remove("BOTMASTER_URL")
        .env_remove("BOTMASTER_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn check_says_everything_and_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.toml"), "[master]\ntitel = \"x\"\n[[worker]]\n").unwrap();
    let ran = run_in(dir.path(), &["check", "x.toml"]);
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    assert_eq!(
        ran.out,
        "error: x.toml:2: master.titel: unknown key\n    fix: did you mean `title`?\n\
         error: x.toml:3: worker[1].name: it has no name\n    fix: add a line such as name = \"…\"\n\
         x.toml: 2 errors, 0 notes\n"
    );
    let ran = run_in(dir.path(), &["--json", "--config", "x.toml", "check"]);
    assert_eq!(ran.code, Some(78));
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["level"], &lines[0]["line"]), (&"error".into(), &2.into()));
    assert_eq!(lines[0]["fix"], "did you mean `title`?");
    assert_eq!((&lines[2]["ok"], &lines[2]["errors"]), (&false.into(), &2.into()));
    assert_eq!(run_in(dir.path(), &["check"]).code, Some(78), "config/botmaster.toml is not there");
}

#[test]
fn check_is_content_with_a_clean_checkout() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Elsewhere, so that nothing that was run here before counts.
    let data = tempfile::tempdir().unwrap();
    let data = data.path().display().to_string();
    for file in ["config/botmaster.toml", "config/fleet.toml"] {
        let ran = run_in(root, &["check", file, "--data-dir", &data]);
        assert_eq!(ran.code, Some(0), "{}", ran.out);
        assert!(ran.out.contains("note: ") && ran.out.contains("botmaster token "), "{}", ran.out);
        assert!(ran.out.contains(": 0 errors") || ran.out.contains(", 0 errors, "), "{}", ran.out);
    }
}

#[test]
fn init_makes_what_check_is_content_with() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), &["init", "new/place"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("botmaster up --config new/place/botmaster.toml"), "{}", ran.out);
    let place = dir.path().join("new/place");
    let token = fs::metadata(place.join("data/tokens/local.token")).unwrap();
    assert_eq!(token.permissions().mode() & 0o777, 0o600);

    let checked = run_in(dir.path(), &["check", "new/place/botmaster.toml"]);
    assert_eq!(
        (checked.code, checked.out.as_str()),
        (
            Some(0),
            "restart: a planned stop (SIGTERM) costs no build whose worker is attached again within 1 h\n\
             restart: a crash costs no build whose worker is attached again within 1 min 20 s\n\
             new/place/botmaster.toml: 1 builder, 1 worker, 0 errors, 0 notes\n"
        )
    );
    let whole = place.canonicalize().unwrap().display().to_string();
    // A stop of the master leaves its instances their builds; a worker that stops
    // ends its own builds, and one that dies finds them again.
    let units = [
        ("botmaster.service", "KillMode=process"),
        ("botmaster-worker.service", "KillMode=process"),
    ];
    for (unit, kill_mode) in units {
        let text = fs::read_to_string(place.join("systemd").join(unit)).unwrap();
        assert!(!text.contains('@'), "{text}");
        assert!(text.contains(&format!("WorkingDirectory={whole}\n")), "{text}");
        for line in [kill_mode, "NoNewPrivileges=yes", "Restart=on-failure"] {
            assert!(text.contains(line), "{unit} has no {line}");
        }
    }

    let before = fs::read_to_string(place.join("botmaster.toml")).unwrap();
    fs::remove_file(place.join("data/tokens/local.token")).unwrap();
    let again = run_in(dir.path(), &["init", "new/place"]);
    assert_eq!(again.code, Some(1));
    assert!(
        again.err.starts_with(
            "botmaster: there already, and nothing is overwritten: new/place/botmaster.toml, "
        ),
        "{}",
        again.err
    );
    assert_eq!(fs::read_to_string(place.join("botmaster.toml")).unwrap(), before);
    assert!(!place.join("data/tokens/local.token").exists(), "nothing is made by halves");
}

#[test]
fn token_makes_the_file_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.toml"), "[[worker]]\nname = \"w\"\n").unwrap();
    let ran = run_in(dir.path(), &["token", "w", "--config", "x.toml"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "data/tokens/w.token\n"));
    let text = fs::read_to_string(dir.path().join("data/tokens/w.token")).unwrap();
    assert!(text.starts_with("bmw_w_"), "{text}");
    let again = run_in(dir.path(), &["token", "w", "--config", "x.toml"]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("is there already"), "{}", again.err);
    let other = run_in(dir.path(), &["token", "v", "--config", "x.toml"]);
    assert_eq!(other.code, Some(78));
    assert!(other.err.contains("there is no worker `v` in x.toml"), "{}", other.err);
}

#[test]
fn bad_configurations_start_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.toml"), "[mastr]\n").unwrap();
    for command in ["up", "master"] {
        let ran = run_in(dir.path(), &[command, "--config", "bad.toml"]);
        assert_eq!(ran.code, Some(78), "{}", ran.err);
        assert!(ran.err.contains("error: bad.toml:1: mastr: unknown key\n"), "{}", ran.err);
    }
    run_in(dir.path(), &["init", "."]);
    let ran = run_in(dir.path(), &["up", "second", "--config", "botmaster.toml"]);
    assert_eq!(ran.code, Some(78));
    assert!(
        ran.err.contains(
            "there is no builder `second` in botmaster.toml\n    fix: name one of: first"
        ),
        "{}",
        ran.err
    );
    fs::write(dir.path().join("data/tokens/local.token"), "password1\n").unwrap();
    let ran = run_in(dir.path(), &["up", "--config", "botmaster.toml"]);
    assert_eq!(ran.code, Some(78));
    assert!(ran.err.contains("this is no token") && !ran.err.contains("password1"), "{}", ran.err);
}

#[test]
fn every_command_teaches_itself() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["up", "master", "worker", "init", "check", "token"] {
        let ran = run_in(dir.path(), &[command, "--help"]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.out.contains("Examples:\n  "), "{}", ran.out);
        assert!(ran.out.contains("Exit codes: 0 "), "{}", ran.out);
    }
    assert_eq!(run_in(dir.path(), &["chekc"]).code, Some(2));
    assert_eq!(run_in(dir.path(), &["check", "--http", "here"]).code, Some(2));
    let ran = run_in(dir.path(), &["--help"]);
    assert!(
        ran.out.contains("Exit codes:\n") && ran.out.contains("botmaster up --once"),
        "{}",
        ran.out
    );
}

#[test]
fn fm03_check_tells_what_a_restart_costs() {
    let dir = tempfile::tempdir().unwrap();
    let builder = |name: &str, more: &str| {
        format!(
            "[[builder]]\nname = \"{name}\"\nworker = \"w\"\n{more}\n[[builder.step]]\nrun = [\"true\"]\n"
        )
    };
    let text = format!(
        "[timers]\nstop_lease = \"2 h\"\n[[worker]]\nname = \"w\"\n{}{}{}{}",
        builder("usual", ""),
        builder("long", "lease = \"10 min\""),
        builder("lab", "on_lost = \"wait\""),
        builder("deploy", "on_lost = \"fail\"")
    );
    fs::write(dir.path().join("x.toml"), text).unwrap();
    let ran = run_in(dir.path(), &["check", "x.toml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    let told: Vec<&str> =
        ran.out.lines().filter_map(|line| line.strip_prefix("restart: ")).collect();
    assert_eq!(
        told,
        [
            "a planned stop (SIGTERM) costs no build whose worker is attached again within 2 h",
            "a crash costs no build whose worker is attached again within 1 min 20 s",
            "builds of `long` have 9 min 50 s after a crash (a lease of their own)",
            "builds of `lab` wait for their worker without end (on_lost = \"wait\")",
            "builds of `deploy` end when their worker is not attached again within 1 min 20 s \
             after a crash, and are not built again (on_lost = \"fail\")",
        ]
    );
}
