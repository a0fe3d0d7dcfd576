//! What good texts come to: defaults, durations, orders, digests.

use std::path::Path;
use std::time::Duration;

use botmaster::core::values::{
    CheckoutMode, ChooseWorker, LockKind, LockUse, Merge, OnLost, Program, StepKind,
};
use botmaster::settings::{
    DurationError, Overrides, Timers, factory_digest, load_text, parse_duration, show_duration,
};

use crate::{BUILDER, load, notes};

#[test]
fn durations_are_read_as_people_write_them() {
    let seconds = |text: &str| parse_duration(text).unwrap().as_millis();
    assert_eq!(seconds("10s"), 10_000);
    assert_eq!(seconds("2 min"), 120_000);
    assert_eq!(seconds("1h30m"), 5_400_000);
    assert_eq!(seconds(" 1 h 30 minutes 5 ms "), 5_400_005);
    assert_eq!(seconds("1 day"), 86_400_000);
    assert_eq!(seconds("0s"), 0);
    assert_eq!(seconds("366d"), 366 * 86_400_000);
}

#[test]
fn durations_that_are_none_say_why() {
    let fault = |text: &str| parse_duration(text).unwrap_err();
    assert_eq!(fault(" "), DurationError::Empty);
    assert_eq!(fault("10"), DurationError::NoUnit(10));
    assert_eq!(fault("1h30"), DurationError::NoUnit(30));
    assert_eq!(fault("-5s"), DurationError::NoNumber("-5s".into()));
    assert_eq!(fault("1.5h"), DurationError::NoUnit(1));
    assert_eq!(fault("5 parsecs"), DurationError::UnknownUnit("parsecs".into()));
    assert_eq!(fault("5 µs"), DurationError::UnknownUnit("µs".into()));
    assert_eq!(fault("367d"), DurationError::TooLong);
    assert_eq!(fault("99999999999999999999s"), DurationError::TooLong);
    assert_eq!(fault("18446744073709551615d"), DurationError::TooLong);
}

#[test]
fn durations_that_are_shown_can_be_read_again() {
    for ms in [0, 1, 999, 1000, 61_000, 3_600_000, 90_061_001, 31_622_400_000] {
        let span = Duration::from_millis(ms);
        assert_eq!(parse_duration(&show_duration(span)), Ok(span));
    }
    assert_eq!(show_duration(Duration::from_millis(5_400_500)), "1 h 30 min 500 ms");
}

#[test]
fn what_is_not_said_has_its_default() {
    let settings = load(BUILDER).unwrap().settings;
    assert_eq!(settings.master.title, "botmaster");
    assert_eq!(settings.master.data_dir, Path::new("data"));
    assert_eq!(settings.master.http.to_string(), "127.0.0.1:8010");
    assert_eq!(settings.master.listen.to_string(), "127.0.0.1:9989");
    assert_eq!(settings.master.drain, Duration::ZERO);
    assert_eq!(settings.timers, Timers::default());
    let builder = &settings.builders[0];
    assert_eq!(builder.builddir, "b");
    assert_eq!(builder.start_timeout, Duration::from_secs(10));
    assert_eq!(builder.grace, Duration::from_secs(150));
    assert_eq!(builder.infra_retries, 3);
    assert_eq!(builder.queue_limit, 200_000);
    assert_eq!((builder.choose, builder.on_lost), (ChooseWorker::Random, OnLost::Requeue));
    let step = &builder.factory.steps[0];
    assert_eq!(step.name, "true");
    assert_eq!(step.timeout, Some(Duration::from_secs(1200)));
    assert_eq!(step.max_time, None);
    assert!(step.flunk_on_failure && !step.halt_on_failure);
    assert!(!step.warn_on_failure && !step.always_run);
}

#[test]
fn b01_the_single_worker_comes_first_and_none_is_a_warning() {
    let text = "[[worker]]\nname = \"w1\"\n[[worker]]\nname = \"w2\"\nmax_builds = 3\n[[worker]]\nname = \"w3\"\n\
                [[builder]]\nname = \"b\"\nworkers = [\"w1\", \"w2\"]\nworker = \"w3\"\n\
                [[builder.step]]\nrun = [\"true\"]\n";
    let settings = load(text).unwrap().settings;
    let names: Vec<&str> = settings.builders[0].workers.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["w3", "w1", "w2"]);
    assert_eq!(settings.workers[1].config.max_builds, 3);
    assert_eq!(settings.workers[1].token_file, Path::new("tokens/w2.token"));
    assert_eq!(
        notes(BUILDER),
        "x.toml:1: builder[1].workers: builder `b` has no worker: its requests will wait\n    fix: add workers = [\"…\"]"
    );
}

#[test]
fn b09_what_is_merged_is_said_for_all_builders_or_for_one() {
    let text = "[master]\nmerge = \"same source\"\n[[builder]]\nname = \"a\"\n[[builder.step]]\nrun = [\"true\"]\n\
                [[builder]]\nname = \"b\"\nmerge = \"none\"\nmax_builds = 2\n[[builder.step]]\nrun = [\"true\"]\n\
                [[builder]]\nname = \"c\"\nmerge = [\"channel\", \"target\"]\n[[builder.step]]\nrun = [\"true\"]\n";
    let builders = load(text).unwrap().settings.builders;
    assert_eq!((&builders[0].merge, builders[0].max_builds), (&Merge::SameSource, None));
    assert_eq!((&builders[1].merge, builders[1].max_builds), (&Merge::None, Some(2)));
    assert_eq!(builders[2].merge, Merge::Properties(vec!["channel".into(), "target".into()]));
    assert_eq!(load(BUILDER).unwrap().settings.builders[0].merge, Merge::None);
}

#[test]
fn steps_have_names_of_their_own() {
    let text = "[[builder]]\nname = \"b\"\n\
                [[builder.step]]\nrun = [\"cargo\", \"test\"]\n\
                [[builder.step]]\nrun = [\"/usr/bin/cargo\", \"test\", \"--all\"]\n\
                [[builder.step]]\nrun = [\"make\", \"-j4\"]\n\
                [[builder.step]]\nshell = \"make | tee log\"\n\
                [[builder.step]]\nname = \"git\"\nrun = [\"true\"]\n\
                [[builder.step]]\ngit = \"https://git.example.org/x.git\"\n";
    let settings = load(text).unwrap().settings;
    let names: Vec<&str> =
        settings.builders[0].factory.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["cargo-test", "cargo-test_1", "make", "make_1", "git", "git_1"]);
}

#[test]
fn git_steps_know_paths_from_urls() {
    let repository = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("x.toml");
        let text = format!("[[builder]]\nname = \"b\"\n[[builder.step]]\ngit = \"{text}\"\n");
        let settings = load_text(&file, &text, &Overrides::default()).unwrap().settings;
        match &settings.builders[0].factory.steps[0].kind {
            StepKind::Git { repository, mode, submodules, depth, branch } => {
                assert_eq!((*mode, *submodules), (CheckoutMode::Clean, false));
                assert_eq!((*depth, branch), (None, &None));
                let base = file.parent().unwrap().display().to_string();
                repository.replace(&base, "BASE")
            }
            StepKind::Run { .. } => panic!("not a git step"),
        }
    };
    assert_eq!(repository("."), "BASE");
    assert_eq!(repository("./sub/repo"), "BASE/sub/repo");
    assert_eq!(repository("sub/../repo.git"), "BASE/repo.git");
    assert_eq!(repository("/srv/repo.git"), "/srv/repo.git");
    assert_eq!(repository("https://git.example.org/x.git"), "https://git.example.org/x.git");
    assert_eq!(repository("git@git.example.org:x/y.git"), "git@git.example.org:x/y.git");
}

#[test]
fn a_builder_says_all_of_it() {
    let text = "[[worker]]\nname = \"w\"\n[[lock]]\nname = \"db\"\n\
                [[lock]]\nname = \"gpu\"\nkind = \"worker\"\nmax_count = 4\n\
                [[builder]]\nname = \"Über builder 1\"\nworker = \"w\"\nlocks = [\"db\", { name = \"gpu\", count = 2 }]\n\
                env = { A = \"1\" }\nproperties = { p = \"q\" }\ntags = [\"t\"]\ndescription = \"d\"\n\
                choose = \"first\"\non_lost = \"wait\"\ngrace = \"3 min\"\ninfra_retries = 0\nqueue_limit = 5\nstart_timeout = \"1s\"\n\
                [[builder.step]]\nrun = [\"a\", \"b c\"]\nworkdir = \"sub/dir\"\nenv = { B = \"2\" }\n\
                timeout = \"off\"\nmax_time = \"1h\"\nhalt_on_failure = true\nflunk_on_failure = false\nwarn_on_failure = true\nalways_run = true\n";
    let settings = load(text).unwrap().settings;
    let builder = &settings.builders[0];
    assert_eq!(builder.builddir, "_ber_builder_1");
    let lock =
        |name: &str, kind, max_count, count| LockUse { name: name.into(), kind, max_count, count };
    assert_eq!(
        builder.locks,
        [lock("db", LockKind::Master, 1, 1), lock("gpu", LockKind::Worker, 4, 2)]
    );
    assert_eq!((&*builder.env["A"], &*builder.properties["p"]), ("1", "q"));
    assert_eq!((&*builder.tags[0], builder.description.as_deref()), ("t", Some("d")));
    assert_eq!((builder.choose, builder.on_lost), (ChooseWorker::First, OnLost::Wait));
    assert_eq!((builder.infra_retries, builder.queue_limit), (0, 5));
    assert_eq!(builder.grace, Duration::from_secs(180));
    let step = &builder.factory.steps[0];
    let program = Program::Argv(vec!["a".into(), "b c".into()]);
    assert_eq!(step.kind, StepKind::Run { program });
    assert_eq!((step.timeout, step.max_time), (None, Some(Duration::from_secs(3600))));
    assert!(
        step.halt_on_failure && !step.flunk_on_failure && step.warn_on_failure && step.always_run
    );
    assert_eq!((step.workdir.as_deref(), &*step.env["B"]), (Some("sub/dir"), "2"));
}

#[test]
fn equal_factories_have_equal_digests() {
    let builder = |step: &str| {
        let text = format!("[[builder]]\nname = \"b\"\n[[builder.step]]\n{step}\n");
        load(&text).unwrap().settings.builders[0].clone()
    };
    let one = builder("run = [\"a\"]\nenv = { X = \"1\", Y = \"2\" }");
    let same = builder("env = { Y = \"2\", X = \"1\" }\nrun = [\"a\"]");
    let other = builder("run = [\"a\"]\nenv = { X = \"1\", Y = \"3\" }");
    assert_eq!(one.factory_digest, same.factory_digest);
    assert_ne!(one.factory_digest, other.factory_digest);
    assert_eq!(one.factory_digest.len(), 64);
    assert_eq!(factory_digest(&one.factory).unwrap(), one.factory_digest);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let overrides = Overrides {
        data_dir: Some("/srv/data".into()),
        http: Some("127.0.0.1:0".parse().unwrap()),
        listen: Some("[::1]:0".parse().unwrap()),
        ui_dir: Some("/srv/pages".into()),
    };
    let text =
        format!("[master]\ndata_dir = \"d\"\nui_dir = \"u\"\nhttp = \"0.0.0.0:1\"\n{BUILDER}");
    let settings = load_text(Path::new("x.toml"), &text, &overrides).unwrap().settings;
    assert_eq!(settings.master.data_dir, Path::new("/srv/data"));
    assert_eq!(settings.master.ui_dir.as_deref(), Some(Path::new("/srv/pages")));
    assert_eq!(settings.master.http.to_string(), "127.0.0.1:0");
    assert_eq!(settings.master.listen.to_string(), "[::1]:0");
    let open = Overrides { http: Some("0.0.0.0:80".parse().unwrap()), ..Overrides::default() };
    let problems = load_text(Path::new("x.toml"), BUILDER, &open).unwrap_err();
    assert!(
        problems[0].message.starts_with("0.0.0.0:80 (from --http) can be reached"),
        "{problems:?}"
    );
}
