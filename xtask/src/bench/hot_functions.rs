//! `cargo xtask hot-functions`: which functions a master goes through, for the
//! linker to lay them side by side.
//!
//! Owns how they are found and written down. What is gained is memory: the
//! kernel maps the pages around each one that is touched, and functions that
//! are strewn over the whole program keep nearly all of it in memory
//! (`docs/decisions/0124-functions-that-run-lie-together.md`).

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::master::{Master, Programs};
use super::proc::Guard;
use super::programs;
use super::scratch::{Layout, Scratch, builder_name};
use crate::report::{self, say};
use crate::root;
use crate::tools;

/// Where they are written down; `build.rs` hands it to the linker.
const FILE: &str = "build/hot-functions.ld";

const BUILDERS: u32 = 20;
const WORKERS: u32 = 5;
const BUILDS: u64 = 200;

/// The letters of a section's name that are written down: enough to tell nearly
/// all apart, and the file stays at half a megabyte.
const LONGEST: usize = 160;

/// How long the builds may take, under valgrind.
const BUILDS_LIMIT: Duration = Duration::from_secs(180);

/// Then comes what is done once a minute.
const MINUTE: Duration = Duration::from_secs(75);

/// What people's pages ask for.
const ASKED: [&str; 8] = [
    "builds?limit=50&order=-buildid",
    "builders",
    "workers",
    "buildrequests?limit=50&order=-buildrequestid",
    "buildsets?limit=20",
    "changes?limit=20",
    "builders/1/builds?limit=5",
    "builds/1/steps",
];

/// Finds them and writes them down.
///
/// # Errors
/// When the master cannot be watched, or the file not be written.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("hot-functions", arguments) {
        return Ok(true);
    }
    if let Some(other) = arguments.first() {
        return Err(format!("`{other}` is no option; see `cargo xtask help hot-functions`"));
    }
    let begin = Instant::now();
    tools::need_package(&["valgrind"], "valgrind")?;
    let guard = Guard::start()?;
    let scratch = Scratch::new("hot", false, &guard)?;
    let map_file = scratch.path().join("link.map");
    // Read by build.rs.
    let programs = programs::build_with(false, &[("BOTMASTER_LINK_MAP", &map_file)])?;
    let map = read(&map_file)?;
    let map = Map::of(&map);
    say("a master without work under valgrind: a minute and a half");
    let idle = watch(&programs, &guard, rest)?;
    let idle = map.patterns(&gone_through(&idle));
    say("a master with work under valgrind: a minute");
    let busy = watch(&programs, &guard, work)?;
    let mut busy = map.patterns(&gone_through(&busy));
    busy.retain(|pattern| !idle.contains(pattern));
    if idle.is_empty() {
        return Err("no function that valgrind names is in the linker's map".to_owned());
    }
    let file = root::root().join(FILE);
    std::fs::write(&file, script(&idle, &busy))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    report::line(&json!({
        "summary": "hot-functions", "ok": true, "idle": idle.len(), "busy": busy.len(), "file": FILE,
        "seconds": report::seconds(begin.elapsed()),
    }));
    Ok(true)
}

fn read(file: &Path) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a master goes through that lives so, as callgrind writes it.
fn watch(programs: &Programs, guard: &Guard, life: Life) -> Result<String, String> {
    let scratch = Scratch::new("watched", false, guard)?;
    let seen = scratch.path().join("callgrind.out");
    let watched = Programs { botmaster: watcher(programs, &scratch, &seen)?, ..programs.clone() };
    let config = scratch.write_layout(&Layout::new(BUILDERS, WORKERS))?;
    let mut master = Master::start(&watched, &scratch, &config, guard)?;
    life(&mut master, &scratch)?;
    master.end()?;
    read(&seen)
}

/// A program that starts botmaster under valgrind.
fn watcher(programs: &Programs, scratch: &Scratch, seen: &Path) -> Result<PathBuf, String> {
    let file = scratch.path().join("watched");
    let text = format!(
        "#!/bin/sh\nexec valgrind --quiet --tool=callgrind --demangle=no \
         --callgrind-out-file='{}' '{}' \"$@\"\n",
        seen.display(),
        programs.botmaster.display()
    );
    std::fs::write(&file, text)
        .and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

/// What happens to a master while it is watched.
type Life = fn(&mut Master, &Scratch) -> Result<(), String>;

/// It starts, somebody looks at it, and then come the things that are done once a
/// minute.
fn rest(master: &mut Master, _: &Scratch) -> Result<(), String> {
    let _looking = master.events("workers/*/connected")?;
    std::thread::sleep(MINUTE);
    master.check()
}

/// Workers attach, builds run, people ask, the configuration is loaded again.
fn work(master: &mut Master, scratch: &Scratch) -> Result<(), String> {
    master.load_workers(scratch, WORKERS)?;
    let mut ends = master.completions()?;
    let builders: Vec<String> = (0..BUILDERS).map(builder_name).collect();
    master.submit(BUILDS, &builders, 0)?;
    if !ends.wait(BUILDS as usize, Instant::now() + BUILDS_LIMIT)? {
        master.check()?;
        return Err(format!("the builds did not end within {} s", BUILDS_LIMIT.as_secs()));
    }
    for question in ASKED {
        master.get(question)?;
    }
    master.reload().map(|_| ())
}

/// The functions in what callgrind writes: each name is told once, in front of
/// what the function cost or where it was called.
fn gone_through(text: &str) -> BTreeSet<&str> {
    let name = |line: &'_ str| -> Option<usize> {
        let rest = line.strip_prefix("fn=(").or_else(|| line.strip_prefix("cfn=("))?;
        let name = rest.split_once(") ")?.1;
        Some(line.len() - name.len())
    };
    // A function that calls itself is told apart by its depth: `name'2`.
    text.lines()
        .filter_map(|line| line.get(name(line)?..))
        .map(|name| name.split('\'').next().unwrap_or(name))
        .collect()
}

/// What the linker put where: names of functions, and the section of each.
struct Map<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Map<'a> {
    fn of(text: &'a str) -> Self {
        let mut section = None;
        let mut all = Vec::new();
        for line in text.lines() {
            // Addresses and sizes first, then a part of a file, or a name in it.
            let Some(what) = line.split_whitespace().nth(4) else { continue };
            if let Some((_, name)) = line.rsplit_once(":(") {
                section = name.strip_suffix(')').filter(|name| name.starts_with(".text."));
            } else if let Some(section) = section {
                all.push((what, section));
            }
        }
        Self(all)
    }

    /// The sections that hold what was gone through, in the words of the linker's
    /// script.
    fn patterns(&self, gone_through: &BTreeSet<&str>) -> BTreeSet<String> {
        let seen = self.0.iter().filter(|(name, _)| gone_through.contains(name));
        seen.map(|(_, section)| pattern(section)).collect()
    }
}

/// A section's name without what another version of the compiler or of a
/// package changes: the crates' numbers (`CsbSq3_`), and that of a function that
/// another unit of the compiler uses. The end of a long one is left open.
fn pattern(section: &str) -> String {
    let (name, mut open) = match section.split_once(".llvm.") {
        Some((name, _)) => (name, true),
        None => (section, false),
    };
    let mut parts = name.split("Cs");
    let mut pattern = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        pattern += "Cs";
        let number = part.split_once('_').filter(|(number, _)| {
            name.contains("._R") && number.chars().all(|letter| letter.is_ascii_alphanumeric())
        });
        pattern += &number.map_or(part.to_owned(), |(_, rest)| format!("*_{rest}"));
    }
    if pattern.len() > LONGEST {
        pattern.truncate(LONGEST);
        open = true;
    }
    if open && !pattern.ends_with('*') {
        pattern.push('*');
    }
    pattern
}

/// Those of an idle master first: what an idle master needs lies closest.
fn script(idle: &BTreeSet<String>, busy: &BTreeSet<String>) -> String {
    let mut text = "/* The functions that a master goes through, for the linker to lay side by \
                    side.\n   Written by `cargo xtask hot-functions`; see \
                    docs/decisions/0124-functions-that-run-lie-together.md */\n\
                    SECTIONS {\n  .text.hot : {\n"
        .to_owned();
    for pattern in idle.iter().chain(busy) {
        text += &format!("    *({pattern})\n");
    }
    text += "  }\n}\nINSERT BEFORE .text;\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_as_callgrind_tells_them() {
        let text = "ob=(1) /bin/x\nfn=(1) one\n12 3\ncfn=(2) two'2\ncalls=1 0\nfn=(2)\n1 1\n";
        assert_eq!(gone_through(text), BTreeSet::from(["one", "two"]));
    }

    #[test]
    fn sections_are_found_by_what_is_in_them() {
        let map = "VMA LMA Size Align Out In Symbol\n\
                   10 10 2a 16 /a.rlib(b.o):(.text._RNvCs1a_1x3one)\n\
                   10 10 2a 1 _RNvCs1a_1x3one\n\
                   10 10 2a 1 _RNvCs1a_1x3two\n\
                   40 40 2a 16 /c.o:(.text.unlikely._RNvCs1a_1x5three)\n\
                   40 40 2a 1 _RNvCs1a_1x5three\n\
                   80 80 2a 16 /c.o:(.text.other)\n\
                   80 80 2a 1 other\n\
                   90 90 8 8 /c.o:(.data.one)\n\
                   90 90 8 1 one\n";
        let seen = BTreeSet::from(["_RNvCs1a_1x3two", "_RNvCs1a_1x5three", "one"]);
        let wanted = [".text._RNvCs*_1x3one", ".text.unlikely._RNvCs*_1x5three"];
        assert_eq!(Map::of(map).patterns(&seen), BTreeSet::from(wanted.map(str::to_owned)));
    }

    #[test]
    fn what_another_compiler_changes_is_left_open() {
        assert_eq!(
            pattern(".text._RINvNtCslNY_4core3ptr4dropNtCs2_1x1TE"),
            ".text._RINvNtCs*_4core3ptr4dropNtCs*_1x1TE"
        );
        assert_eq!(pattern(".text._RNvCs1_1x3run.llvm.123"), ".text._RNvCs*_1x3run*");
        assert_eq!(pattern(".text.sqlite3Cs_x"), ".text.sqlite3Cs_x");
        let long = pattern(&format!(".text._RNv{}", "x".repeat(500)));
        assert_eq!(long.len(), LONGEST + 1);
        assert!(long.ends_with("x*"));
    }

    #[test]
    fn the_linker_is_told_those_of_an_idle_master_first() {
        let one = |name: &str| BTreeSet::from([name.to_owned()]);
        let text = script(&one(".text.one"), &one(".text.another"));
        assert!(text.contains("    *(.text.one)\n    *(.text.another)\n"), "{text}");
        assert!(text.ends_with("INSERT BEFORE .text;\n"));
    }
}
