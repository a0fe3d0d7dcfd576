//! `up` with a small repository of its own. How `up` ends, and how it ends
//! everything with it, is told in `tests/config/up.rs`.

use std::process::Command;

use crate::kit::{Place, Ran, run};

fn git(place: &Place, args: &[&str]) {
    let mut command = Command::new("git");
    place.prepare(&mut command);
    command
        .args(["-C", "repo", "-c", "user.name=Test", "-c", "user.email=test@example.com"])
        .args(args);
    run(&mut command).expect(0);
}

fn commit(place: &Place, body: &str) {
    std::fs::write(place.path("repo/check.sh"), body).unwrap();
    git(place, &["add", "check.sh"]);
    git(place, &["commit", "--quiet", "-m", "change"]);
}

fn up_once(place: &Place) -> Ran {
    let mut command = place.program();
    command.args(["up", "--once", "--config", "x.toml"]);
    command.args(["--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    run(&mut command)
}

#[test]
fn up_once_is_green_and_after_a_broken_commit_red_with_the_error() {
    let place = Place::new(
        "[[worker]]\nname = \"local\"\n[[builder]]\nname = \"repo\"\nworkers = [\"local\"]\n\
         [[builder.step]]\nname = \"checkout\"\ngit = \"repo\"\n\
         [[builder.step]]\nname = \"check\"\nrun = [\"sh\", \"check.sh\"]\n",
    );
    std::fs::create_dir(place.path("repo")).unwrap();
    git(&place, &["init", "--quiet", "--initial-branch", "main"]);
    commit(&place, "echo all is well\n");
    let green = up_once(&place).expect(0);
    assert!(green.out.ends_with("build repo/1: success\n"), "{}", green.all());
    assert!(green.out.contains("  step check: success, "), "{}", green.all());

    commit(&place, "echo 'check.sh: the frobnicator is bent' >&2\nexit 4\n");
    let red = up_once(&place).expect(1);
    assert!(red.out.ends_with("build repo/2: failure\n"), "{}", red.all());
    assert!(red.out.contains("check.sh: the frobnicator is bent"), "{}", red.all());

    // Both builds, their revisions and the error are kept.
    let master = place.master();
    let revision = |number| {
        let build = master.ended("repo", number);
        build["properties"]["got_revision"][0].as_str().unwrap().to_owned()
    };
    assert_ne!(revision(1), revision(2));
    assert_eq!(master.log("repo", 2, 1, 'e'), ["check.sh: the frobnicator is bent"]);
    let ran = master.cli(&["log", "repo/2", "check"]).expect(0);
    assert!(ran.out.contains("the frobnicator is bent\n"), "{}", ran.all());
    let ran = master.cli(&["build", "repo/2"]).expect(0);
    assert!(ran.out.contains("exit code 4"), "{}", ran.all());
}
