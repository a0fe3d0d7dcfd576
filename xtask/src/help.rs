//! What the commands are, for people.

use crate::report;

const ALL: &str = "\
Developers' commands. Each prints JSON objects, one a line, on standard output,
the summary last, and text for people on standard error. Exit code: 0 all is
well, 1 something failed, 2 the command could not be understood or begun.

  cargo xtask test [--quick] [--only STAGE]
      Everything that has to hold before a change goes in. Continuous
      integration runs exactly this (`.ci/run`).

  cargo xtask rows [--missing] [--faults] [--list] [--strict] [--results FILE]
      Runs the tests that carry a row of docs/seed-rows.md (or, with --faults,
      of docs/fault-matrix.md) and tells which rows no test shows.

  cargo xtask diagrams
      Draws the transition tables in docs/transitions.md.

  cargo xtask simulate [--seeds N] [--seed S]
      Whole masters and workers in virtual time, with faults, from N seeds.

  cargo xtask bench WORKLOAD... [--quick] [--repeat N] [--n N] [--with buildbot]
      Measures the program, and Buildbot beside it, on the workloads of
      bench/peer/workloads.md.

  cargo xtask api [--examples N]
      Asks the program all that its own API description allows.

  cargo xtask help [COMMAND]
      This text, or more about one command.
";

const TEST: &str = "\
cargo xtask test [--quick] [--only STAGE]

Runs these stages, in this order, and goes on after one that failed:

  format    cargo fmt --all --check
  clippy    cargo clippy --workspace --all-targets -- -D warnings
  nextest   cargo nextest run --workspace       (a test that hangs is ended at 120 s)
  rows      cargo xtask rows                    (with the results of the stage before)
  doctest   cargo test --workspace --doc
  doc       cargo doc --workspace --no-deps     (warnings are errors)
  deny      cargo deny check bans licenses sources
  simulate  cargo xtask simulate --seeds 1000

  --quick        leaves out `doc`, `deny` and `simulate`
  --only STAGE   runs that stage alone; may be given several times

Needs git and a C compiler, and says so when one is missing. rustfmt and clippy
are added with rustup, cargo-nextest and cargo-deny with `cargo install
--locked`, when they are absent. Without cargo-nextest, `cargo test` runs the
tests, and the line of that stage says so; `rows` fails then, for it has no
results to read. CARGO_TARGET_DIR is honoured.

Each stage prints {\"stage\":…,\"ok\":…,\"seconds\":…}; the last line is the summary.
";

const ROWS: &str = "\
cargo xtask rows [--missing] [--faults] [--list] [--strict] [--results FILE]

A test carries a row when the row's id is a word of its name:
`b08_failed_ping_requeues_at_the_head` carries B08, and `fr01_b25_…` carries
both FR01 and B25. Runs the tests that carry a row (with cargo-nextest) and
prints one object a row: the tests that passed, those that failed, and those
that are in the tree and did not run. Only a test that ran and passed counts.
Ends with 1 when a row of docs/seed-rows.md, or an FC row of the fault matrix,
has none, or a test begins with an id that no row has.

  --missing        prints only the rows without a test that counts
  --faults         all rows of docs/fault-matrix.md; lists, and ends with 0
  --list           runs nothing: which tests are in the tree; ends with 0
  --strict         a missing test is a failure also with --faults or --list
  --results FILE   runs nothing: reads the results that nextest left in FILE
                   (`cargo xtask test` leaves target/nextest/default/junit.xml)
";

const API: &str = "\
cargo xtask api [--examples N]

Builds the program, starts a master with a worker in target/api, and lets
Schemathesis ask it what its description (openapi.json) allows, and what it does
not: orders as well as questions, N (5) random ones each beside the systematic
ones. Found is: an answer that is a failure inside, and one whose status, type or
body is not described. Takes three to five minutes.

Needs Schemathesis (`pip install schemathesis`), as `schemathesis` or as the
variable SCHEMATHESIS names it.
";

const DIAGRAMS: &str = "\
cargo xtask diagrams

Writes docs/transitions.md from the transition tables in src/core. A test fails
while the file and the tables differ.
";

const SIMULATE: &str = "\
cargo xtask simulate [--seeds N] [--seed S]

Runs masters and workers in virtual time, with faults, from N seeds (1,000), of
which S (1) is the first. The same seed does the same. What is found is told
with the last lines of what happened and the command that repeats it. See
docs/simulation.md.

The last line is one JSON object: `seeds`, `virtual_hours`, `faults` (how often
each kind struck), `saw` (how many seeds saw an adoption, a requeue, a takeover
with a running build, a duplicate attach), `violations`, `digest` (over all
traces; the same seeds and the same code have the same one).

Ends with 1 when something was found; from 100 seeds on also when a kind of
fault never struck, or fewer than a tenth of the seeds saw one of the four.
";

const BENCH: &str = "\
cargo xtask bench WORKLOAD... [--quick] [--repeat N] [--n N] [--with buildbot] [--keep]

Workloads (bench/peer/workloads.md has their exact definitions):

  dispatch     W1: one builder, one real worker; builds one after the other
  throughput   W2: 20 builders, 50 workers in one load process; many requests at once

  --quick           one repetition, and throughput with 2,000 requests only
  --repeat N        repetitions, each with a fresh database (3; with --quick 1)
  --n N             requests: dispatch 100; throughput 2,000, raised until the
                    drain lasts at least 20 s unless --n or --quick is given
  --with buildbot   then the same workloads on Buildbot, and the ratios
  --dev             without --release: to try the command out, not to measure
  --keep            leaves the scratch folders, with the logs, for a look

Builds the program and the load process with --release first. Everything runs
in scratch folders below the folder for temporary files ($TMPDIR), talks over
127.0.0.1 only, has time limits, and is ended by process id, also after Ctrl-C.

Buildbot needs python3 with venv and pip: bench/peer/buildbot/setup.sh makes
the virtual environment in $PEER_VENV (default $TMPDIR/peer-buildbot).
";

/// Prints the help: all of it, or that of one command.
///
/// # Errors
/// When there is no such command.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    report::say(text(arguments.first().map_or("help", String::as_str))?.trim_end());
    Ok(true)
}

fn text(command: &str) -> Result<&'static str, String> {
    match command {
        "help" => Ok(ALL),
        "test" => Ok(TEST),
        "api" => Ok(API),
        "rows" => Ok(ROWS),
        "simulate" => Ok(SIMULATE),
        "diagrams" => Ok(DIAGRAMS),
        "bench" => Ok(BENCH),
        other => Err(format!("there is no command `{other}`\n\n{ALL}")),
    }
}

/// Whether the arguments ask for help; if so, it has been printed.
#[must_use]
pub fn wanted(command: &str, arguments: &[String]) -> bool {
    let asked = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    asked && run(&[command.to_owned()]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_help_of_its_own() {
        for command in ["test", "rows", "diagrams", "simulate", "bench", "help"] {
            assert!(text(command).unwrap().contains(&format!("cargo xtask {command}")));
            assert!(ALL.contains(&format!("cargo xtask {command}")), "{command}");
        }
        assert!(text("nonsense").unwrap_err().contains("no command `nonsense`"));
    }

    #[test]
    fn the_help_of_test_names_every_stage() {
        for stage in crate::test::STAGES {
            assert!(TEST.contains(&format!("  {} ", stage.name)), "{}", stage.name);
        }
    }
}
