//! Steps that go wrong say what is wrong, in the build and in the log.

use serde_json::Value;

use crate::kit::{Master, Place, builder, worker};

fn step_text(master: &Master<'_>, builder: &str, step: u64) -> (i64, String) {
    let step: Value = master.one(&format!("builders/{builder}/builds/1/steps/{step}")).unwrap();
    (step["results"].as_i64().unwrap(), step["state_string"].as_str().unwrap().to_owned())
}

#[test]
fn a_missing_program_a_bad_folder_and_a_broken_repository_are_named() {
    let place = Place::new(&format!(
        "{}{}{}{}{}",
        worker("w", 4),
        "[[builder]]\nname = \"program\"\nworkers = [\"w\"]\n\
         [[builder.step]]\nname = \"gone\"\nrun = [\"no-such-program-here\", \"x\"]\n\
         [[builder.step]]\nname = \"after\"\nrun = [\"echo\", \"it goes on\"]\n",
        "[[builder]]\nname = \"folder\"\nworkers = [\"w\"]\n\
         [[builder.step]]\nname = \"link\"\nshell = \"rm -rf ../out; ln -s / ../out\"\n\
         [[builder.step]]\nname = \"outside\"\nrun = [\"true\"]\nworkdir = \"out/tmp\"\n\
         [[builder.step]]\nname = \"file\"\nshell = \": > ../plain\"\n\
         [[builder.step]]\nname = \"inside-file\"\nrun = [\"true\"]\nworkdir = \"plain\"\n",
        "[[builder]]\nname = \"repository\"\nworkers = [\"w\"]\n\
         [[builder.step]]\nname = \"checkout\"\ngit = \"@DIR@/no-such.git\"\n\
         [[builder.step]]\nname = \"never\"\nrun = [\"true\"]\n",
        builder("exit", "w", &["echo out; echo err >&2; exit 7"]),
    ));
    let master = place.master();
    let _worker = master.worker("w", 4);
    for builder in ["program", "folder", "repository", "exit"] {
        master.force(builder);
    }

    let build = master.ended_as("program", 1, 2);
    assert_eq!(build["state_string"], "failed 'gone' (failure)");
    let (results, text) = step_text(&master, "program", 0);
    assert_eq!(results, 2);
    assert!(text.contains("program `no-such-program-here` was not found; PATH is `"), "{text}");
    let told = master.log("program", 1, 0, 'h').join("\n");
    assert!(told.starts_with("$ no-such-program-here x\n"), "{told}");
    assert!(told.contains("could not run: program `no-such-program-here` was not found"), "{told}");
    assert_eq!(master.log("program", 1, 1, 'o'), ["it goes on"]);

    master.ended_as("folder", 1, 2);
    let (_, text) = step_text(&master, "folder", 1);
    assert!(text.contains("`out/tmp` leads out of `"), "{text}");
    let (_, text) = step_text(&master, "folder", 3);
    assert!(text.contains("is in the way and no folder"), "{text}");

    let build = master.ended_as("repository", 1, 2);
    assert_eq!(build["state_string"], "failed 'checkout' (failure)");
    let all = ['o', 'e', 'h'].map(|channel| master.log("repository", 1, 0, channel).join("\n"));
    assert!(all.join("\n").contains("no-such.git"), "{all:?}");
    assert_eq!(master.one("builders/repository/builds/1/steps/1"), None, "a checkout halts");

    master.ended_as("exit", 1, 2);
    assert_eq!(step_text(&master, "exit", 0), (2, "'s0' exit code 7 (failure)".to_owned()));
    assert_eq!(master.log("exit", 1, 0, 'o'), ["out"]);
    assert_eq!(master.log("exit", 1, 0, 'e'), ["err"]);
    let ended = master.log("exit", 1, 0, 'h');
    assert_eq!(ended.last().unwrap(), "program finished with exit code 7");
}

#[test]
fn fr16_a_step_that_takes_too_long_is_ended_and_says_so() {
    let place = Place::new(&format!(
        "{}{}",
        worker("w", 2),
        "[[builder]]\nname = \"silent\"\nworkers = [\"w\"]\n\
         [[builder.step]]\nname = \"s\"\nshell = \"echo begun; sleep 600\"\ntimeout = \"1 s\"\n\
         [[builder]]\nname = \"endless\"\nworkers = [\"w\"]\n\
         [[builder.step]]\nname = \"s\"\n\
         shell = \"while [ -d @DIR@ ]; do echo busy; sleep 0.1; done\"\nmax_time = \"1 s\"\n",
    ));
    let master = place.master();
    let _worker = master.worker("w", 2);
    master.force("silent");
    master.force("endless");
    master.ended_as("silent", 1, 2);
    master.ended_as("endless", 1, 2);
    assert_eq!(step_text(&master, "silent", 0).1, "'s' timed out: no output for 1 s");
    assert_eq!(step_text(&master, "endless", 0).1, "'s' timed out: it ran longer than 1 s");
    assert_eq!(master.log("silent", 1, 0, 'o'), ["begun"]);
}
