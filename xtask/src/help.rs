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

  cargo xtask ui [--browser PATH] [--ui-dir DIR] [FILTER...]
      Buildbot's own web pages in a headless browser against this program.

  cargo xtask alerts
      Checks and tests the alert rules of config/prometheus with promtool.

  cargo xtask crash-points [--point NAME] [--random N] [--list]
      The real program, killed with -9 at each of its named points and started
      again; what it leaves is judged.

  cargo xtask chaos [--seconds N] [--seed S]
      A real master and ten real workers under load, of which one is killed
      with -9 every second; what they leave is judged.

  cargo xtask fuzz [--seconds N] [--seed S] [--only TARGET]
      Nonsense for all who read the wire: the decoder, a real master's
      connections, the worker program's agent.

  cargo xtask bench all|WORKLOAD... [--quick] [--repeat N] [--n N] [--with buildbot]
      Measures the program, and Buildbot beside it, on the workloads of
      bench/peer/workloads.md.

  cargo xtask growth [--quick] [--curve NAME]... [--repeat N]
      What one build costs with more and more of everything.

  cargo xtask soak [--minutes N]
      1,000 simulated workers and builds all the time: does anything grow?

  cargo xtask instructions [--write] [--only PATH]
      Counts what the hot paths cost, and compares with what they did cost.

  cargo xtask hot-functions
      Finds the functions that a master goes through, for the linker to lay them
      side by side.

  cargo xtask api [--examples N] [--seconds N]
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
  fuzz      cargo xtask fuzz --seconds 24
  crash-points  cargo xtask crash-points
  chaos     cargo xtask chaos --seconds 60
  alerts    cargo xtask alerts
  ui        cargo xtask ui
  api       cargo xtask api --examples 1 --seconds 120
  instructions  cargo xtask instructions

  --quick        the first five only
  --only STAGE   runs that stage alone; may be given several times

Needs git and a C compiler, and says so when one is missing. rustfmt and clippy
are added with rustup, cargo-nextest and cargo-deny with `cargo install
--locked`, when they are absent. Python with pip, promtool, Chromium and
valgrind are Debian's packages python3-pip, prometheus, chromium and valgrind: installed with apt-get
when they are absent and root asks, else told; what they are for fails then.
Buildbot's pages and Schemathesis come from PyPI. Without cargo-nextest, `cargo test` runs the
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
  --faults         all rows of docs/fault-matrix.md; lists, and ends with 0; with
                   --strict it ends with 1 when a row of the groups FA FP FB FR
                   FL FF FM FD FT FN has no test, unless its time has not come:
                   the last line tells which those are, and why
  --list           runs nothing: which tests are in the tree; ends with 0
  --strict         a missing test is a failure also with --faults or --list
  --results FILE   runs nothing: reads the results that nextest left in FILE
                   (`cargo xtask test` leaves target/nextest/default/junit.xml)
";

const API: &str = "\
cargo xtask api [--examples N] [--seconds N]

Builds the program, starts a master with a worker in target/api, and lets
Schemathesis ask it what its description (openapi.json) allows, and what it does
not: orders as well as questions, N (5) random ones each beside the systematic
ones. Found is: an answer that is a failure inside, and one whose status, type or
body is not described. Takes three to five minutes.

  --examples N   how many random ones (5)
  --seconds N    ends then, even if not all was asked

Schemathesis is got from PyPI with python3 and pip, once, into target, unless
the variable SCHEMATHESIS names the program.
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

const UI: &str = "\
cargo xtask ui [--browser PATH] [--ui-dir DIR] [FILTER...]

Runs tests/stock_ui: a master and a worker serve Buildbot's own, unmodified web
pages to a headless Chromium; each page must load without an error in its
console, a live log must grow, and force, stop, rebuild, cancel and pause must
work. Pictures of all pages are left in target/stock-ui/shots.

  --browser PATH   a Chromium or Chrome; else the first one in $PATH
  --ui-dir DIR     the pages; else those of tests/stock_ui/packages.txt are got
                   from PyPI with python3 and pip, once, into target/stock-ui
";

const ALERTS: &str = "\
cargo xtask alerts

Runs `promtool check rules`, `promtool test rules` and `promtool check config`
on config/prometheus. Needs promtool (Debian: apt-get install prometheus). That the rules and the dashboard
name only metrics that there are is a test of the suite `api`.
";

const CRASH_POINTS: &str = "\
cargo xtask crash-points [--point NAME[:N][,NAME[:N]]] [--random N] [--seed S] [--jobs N] [--keep] [--list]

For each crash point of the program (docs/fault-matrix.md, section 5): a real
master and real workers in a folder of their own do a small piece of work, the
process dies there by kill -9, is started again, and when nothing moves any more
what it left is judged. See docs/crash-points.md. Without --point or --random
each point kills when it is reached first, and again in a second run when it is
reached for the third time.

  --point NAME[:N]  this point alone, the N-th time (1) that it is reached; with
                    commas between several, one kills in each life of the
                    master. May be given several times
  --random N        N pairs of points
  --seed S          draws the pairs (1)
  --jobs N          runs side by side (4)
  --keep            leaves the folder of a run with violations, for a look
  --list            runs nothing: which points there are, and which are to come

One JSON object a run: `point`, `ok`, `reached`, `lives`, `requests`, `builds`,
`rebuilt`, `violations`; the summary last. Ends with 1 on a violation, or when a
point was never reached.
";

const CHAOS: &str = "\
cargo xtask chaos [--seconds N] [--seed S] [--workers N] [--keep]

A real master and real workers (10) in a folder of their own, builds of about
2 s that write down when they ran and what they wrote, four clients that ask for
more; for N seconds (60) one of the processes, drawn from seed S (1), is killed
with -9 every second and started again. Then nobody is killed, and when nothing
moves any more what is left is judged.

The last line is one JSON object: `ok`, `lost` (acknowledged requests without
their one good end), `overlapped` (requests of which two runs were alive at
once, by the times that the builds themselves wrote), `log_differences` (logs
that are not what their build wrote), `kills`, `kills_master`, `kills_worker`,
`kills_keeper`, `requests`, `builds`, `rebuilt` (builds that had to be made
again), `adopted` and `carried` (builds that succeeded although the master, or
their worker program, was killed while they ran), `seconds`, `seed`. Violations
are told before, one a line. Ends with 1 when there is one.

  --keep   leaves the folder of a run with violations, for a look
";

const FUZZ: &str = "\
cargo xtask fuzz [--seconds N] [--seed S] [--only TARGET]

Plays what is kept in tests/fuzz/corpus/, then makes new inputs for N seconds
(60), a third for each of the decoder, a real master's `connection`s and the
worker program's `agent`; --only gives all of it to one of them. What goes wrong is
written to the corpus, and named. S makes the same choices again, as far as the
machine's pace lets it. See docs/decisions/0014-fuzzing.md.

The last line is one JSON object: `targets`, `failed`, `seconds`.
";

/// Of `cargo xtask bench`.
pub const BENCH: &str = "\
cargo xtask bench all|WORKLOAD... [--quick] [--repeat N] [--n N] [--with buildbot]
                  [--chart FILE] [--from FILE]... [--dev] [--keep]

Workloads (bench/peer/workloads.md has their exact definitions):

  dispatch     W1: one builder, one real worker; builds one after the other
  throughput   W2: 20 builders, 50 workers in one load process; many requests at once
  log_ingest   W3: one build writes 50 and 500 MB through a real worker, beside the
               same script into a pipe; then a load process that has it ready
  backlog      W4: a master starts with 100, 25,000 and 100,000 requests that
               wait, and one worker builds them
  reconfig     W5: 1,000 builders, of which one changes while another one builds
               and a client asks
  idle_fleet   W6: 0, 500, 2,000 and 10,000 workers that have nothing to do;
               10,000 need a hard limit of 13,468 open files (ulimit -Hn)
  api_under_load  W7: throughput alone, with a client that asks for the newest 50
               builds as fast as it can, and with one that asks 500 times a second
  crash        W8: kill -9 of the master in the middle of builds, and a new one

  --quick           one repetition, and the small sizes
  --repeat N        repetitions, each with a fresh database (3; with --quick 1)
  --n N             the size, with one workload: dispatch 100; log_ingest 500 (MB);
                    backlog 100,000; crash 100; throughput 2,000, raised
                    until the drain lasts at least 20 s unless --n is given
  --with buildbot   the same on Buildbot, one workload of each system in turn,
                    and the ratios; where it has a tuned variant, with both
  --chart FILE      draws the ratios (SVG)
  --from FILE       measures nothing: reads the lines that earlier runs printed,
                    for the tables and the chart; may be given several times
  --dev             without --release: to try the command out, not to measure
  --keep            leaves the scratch folders, with the logs, for a look

`all --quick` takes 15 minutes at most, Buildbot apart. Prints one JSON object a
measurement; then, for people, the ratios and which targets are met, and the
summary with the same as JSON. A missed target is no failure: it ends with 1 when
something could not be measured.

Builds the program and the load tools with --release first. Everything runs
in scratch folders below the folder for temporary files ($TMPDIR), talks over
127.0.0.1 only, has time limits, and is ended by process id, also after Ctrl-C.

Buildbot needs python3 with venv and pip: bench/peer/buildbot/setup.sh makes
the virtual environment in $PEER_VENV (default $TMPDIR/peer-buildbot).
";

/// Help for `growth`, which tells of each curve.
pub const GROWTH: &str = "\
cargo xtask growth [--quick] [--curve NAME]... [--repeat N] [--chart FILE] [--dev] [--keep]

What one build costs the master (processor time, and wall time where the machine
is quiet) while one thing grows and the others stay as they are. Curves:

  queue      100 to 100,000 requests wait
  builders   10 to 1,000
  workers    10 to 10,000, for 1,000 builders
  database   empty to 1,000,000 builds (with --quick 100,000), which
             bench/store_cost.rs writes through the store as a master does

Each builder lists ten workers, if there are as many. Unless their curve says
otherwise there are 20 builders and 50 workers of a load process, and 1,000
requests wait (on the curve of the workers 100): for each 50 builds that end, 50
more requests are submitted.

  --quick        one measurement of 2,000 builds for each point, not three of
                 10,000
  --curve NAME   that curve alone; may be given several times
  --repeat N     measurements of each point; the median counts
  --chart FILE   draws the curves, as an SVG picture
  --dev, --keep  as for `bench`

Prints one JSON object a measurement, then the curves for people, and the summary.
";

const SOAK: &str = "\
cargo xtask soak [--minutes N] [--workers N] [--rate R] [--dev] [--keep]

A master with 100 builders and 1,000 workers in one load process builds for N
minutes (20): each worker has a build and the next one waits, or R requests a
second are made. Of each builder 100 builds are kept. Prints one JSON object a
minute: builds a second, the master's memory (RSS), descriptors, processor share,
size of its data, requests that wait; the summary last.

Ends with 1 when a build failed or has no end, or when, by the straight line
through the last three quarters of the time, memory grew by more than a tenth (and
8 MB), or the descriptors by more than 8. Takes 20 GB of disk at most.
";

const HOT_FUNCTIONS: &str = "\
cargo xtask hot-functions

Writes build/hot-functions.ld: the functions that a master goes through while it
starts, workers attach, builds run, people ask and the configuration is loaded
again, as valgrind (callgrind) sees them. The linker lays them side by side, so
that the many others are not in memory. Takes some five minutes, most of them for
the build.

Write it again when `cargo xtask bench idle_fleet` tells of much more memory
than it did (`rss_before_mb`): after another version of the compiler, or after much
of the program has changed. A file that is out of date costs memory, no more.

Builds with --release, and with LLVM's linker, which is the usual one on x86_64. Needs
valgrind; where it is absent and there is apt-get, it is installed.
";

const INSTRUCTIONS: &str = "\
cargo xtask instructions [--write] [--only PATH]

Goes each hot path of bench/instructions, and the stores' part of a build, under
valgrind (cachegrind): with a number of rounds and with twice as many. The
difference is what a round costs, in instructions of the processor. That does
not depend on how busy the machine is. Ends with 1 when a path costs more than
10 % more than bench/instructions/baseline.json says.

  --write       writes the counts down, instead of comparing
  --only PATH   this path alone; may be given several times

Counts hold for one kind of processor (x86_64, aarch64). One without counts in the
file is counted and not compared. Two runs on one machine differ by less than 1 %;
the rest of the tolerance is for another compiler or C library.

What cachegrind found of each path stays in target/instructions:
`cg_annotate target/instructions/master_build.60` tells which functions cost most.

Builds with --release. Needs valgrind; where it is absent and there is apt-get, it
is installed.

One JSON object a path: `path`, `instructions`, `baseline`, `change_percent`,
`ok`; the summary last.
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
        "crash-points" => Ok(CRASH_POINTS),
        "chaos" => Ok(CHAOS),
        "fuzz" => Ok(FUZZ),
        "diagrams" => Ok(DIAGRAMS),
        "ui" => Ok(UI),
        "alerts" => Ok(ALERTS),
        "bench" => Ok(BENCH),
        "growth" => Ok(GROWTH),
        "soak" => Ok(SOAK),
        "instructions" => Ok(INSTRUCTIONS),
        "hot-functions" => Ok(HOT_FUNCTIONS),
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
        for command in [
            "test",
            "rows",
            "diagrams",
            "simulate",
            "crash-points",
            "chaos",
            "bench",
            "growth",
            "soak",
            "instructions",
            "hot-functions",
            "help",
        ] {
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
