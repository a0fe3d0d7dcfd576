//! Every bad input with its message, its line, its key and its fix (row FC01).

use crate::{BUILDER, faults, load, notes};

/// A text with one part before a good builder.
fn before(part: &str) -> String {
    faults(&format!("{part}\n{BUILDER}"))
}

/// A builder with more keys, from line 3 on.
fn builder(keys: &str) -> String {
    faults(&format!(
        "[[builder]]\nname = \"b\"\n{keys}\n[[builder.step]]\nrun = [\"true\"]\n[[worker]]\nname = \"linux-1\"\n"
    ))
}

/// A step of these lines, from line 4 on.
fn step(lines: &str) -> String {
    faults(&format!("[[builder]]\nname = \"b\"\n[[builder.step]]\n{lines}\n"))
}

#[test]
fn fc01_what_is_not_toml_has_line_and_column() {
    let text = faults("[master]\ntitle = \n");
    assert!(text.starts_with("x.toml:2: this is not TOML at column 9: "), "{text}");
    assert!(text.ends_with("\n    fix: see https://toml.io for how TOML is written"), "{text}");
    // All of it, not only the first.
    let text = faults("[master]\ntitle = \nhttp = \"\n");
    assert!(text.contains("x.toml:2:") && text.contains("x.toml:3:"), "{text}");
    let text = faults("[master]\ntitle = \"a\"\ntitle = \"b\"\n");
    assert!(text.starts_with("x.toml:3: this is not TOML at column 1: duplicate key"), "{text}");
}

#[test]
fn fc01_all_faults_are_reported_in_the_order_of_the_lines() {
    assert_eq!(
        faults(
            "[up]\nworker = \"w2\"\n[mastr]\n[master]\ndrain = 5\n[[worker]]\nname = \"w1\"\nmax_builds = 0\n"
        ),
        "x.toml:2: up.worker: there is no worker `w2`\n    fix: did you mean `w1`?\n\
         x.toml:3: mastr: unknown key\n    fix: did you mean `master`?\n\
         x.toml:5: master.drain: a duration is wanted here, and this is a whole number\n    \
         fix: write whole numbers with units ms, s, min, h or d, for example \"90s\", \"2 min\" or \"1h30m\"\n\
         x.toml:8: worker[1].max_builds: 0 is out of range\n    fix: write a whole number from 1 to 10000"
    );
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    assert_eq!(
        before("[master]\ndatadir = \"x\""),
        "x.toml:2: master.datadir: unknown key\n    fix: did you mean `data_dir`?"
    );
    assert_eq!(
        before("[master]\nbanana = 1"),
        "x.toml:2: master.banana: unknown key\n    fix: remove it; known here are: title, data_dir, http, listen, insecure, drain, merge, allowed_origins, ui_dir"
    );
    assert_eq!(
        step("run = [\"true\"]\nhaltOnFailure = true"),
        "x.toml:5: builder[1].step[1].haltOnFailure: unknown key\n    fix: did you mean `halt_on_failure`?"
    );
}

#[test]
fn b02_periodic_build_time_names_its_replacement() {
    assert_eq!(
        builder("periodic_build_time = 60"),
        "x.toml:3: builder[1].periodic_build_time: a builder no longer has this key\n    \
         fix: remove it: the Periodic scheduler is its replacement"
    );
}

#[test]
fn b01_workers_that_are_unknown_or_named_twice() {
    assert_eq!(
        builder("worker = \"linux-2\""),
        "x.toml:3: builder[1].worker: there is no worker `linux-2`\n    fix: did you mean `linux-1`?"
    );
    assert_eq!(
        builder("workers = [\"mainframe\"]"),
        "x.toml:3: builder[1].workers: there is no worker `mainframe`\n    \
         fix: add a [[worker]] with this name; there are: linux-1"
    );
    assert_eq!(
        builder("worker = \"linux-1\"\nworkers = [\"linux-1\"]"),
        "x.toml:4: builder[1].workers: worker `linux-1` is named twice\n    fix: name it once"
    );
    assert_eq!(
        builder("env = { A = 1 }"),
        "x.toml:3: builder[1].env.A: a text is wanted here, and this is a whole number\n    \
         fix: write the value in quotes: \"…\""
    );
}

#[test]
fn names_are_there_once() {
    assert_eq!(
        before("[[worker]]\nname = \"w\"\n[[worker]]\nname = \"w\""),
        "x.toml:4: worker[2].name: there is a worker `w` already, in line 2\n    fix: give one of them another name"
    );
    assert_eq!(
        faults(&format!("{BUILDER}{BUILDER}")),
        "x.toml:6: builder[2].name: there is a builder `b` already, in line 2\n    fix: give one of them another name"
    );
    assert_eq!(
        before("[[lock]]\nname = \"l\"\n[[lock]]\nname = \"l\""),
        "x.toml:4: lock[2].name: there is a lock `l` already, in line 2\n    fix: give one of them another name"
    );
    assert_eq!(
        step("name = \"s\"\nrun = [\"true\"]\n[[builder.step]]\nname = \"s\"\nrun = [\"true\"]"),
        "x.toml:7: builder[1].step[2].name: the builder has a step `s` already\n    fix: give one of them another name"
    );
    assert_eq!(
        before("[[worker]]\nmax_builds = 1"),
        "x.toml:1: worker[1].name: it has no name\n    fix: add a line such as name = \"…\""
    );
}

#[test]
fn two_builders_in_one_folder_are_refused() {
    let text =
        format!("{}{}", BUILDER.replace("\"b\"", "\"b 1\""), BUILDER.replace("\"b\"", "\"b_1\""));
    assert_eq!(
        faults(&text),
        "x.toml:6: builder[2].builddir: builder `b 1` has the folder `b_1` already: their builds would overwrite each other\n    \
         fix: give one of them another folder with builddir = \"…\""
    );
    assert_eq!(
        builder("builddir = \"../b\""),
        "x.toml:3: builder[1].builddir: the name `../b` has a `/`, which parts of addresses and folders are told apart by\n    \
         fix: use `-` or `_` instead"
    );
}

fn builder_name(name: &str) -> String {
    faults(&format!("[[builder]]\nname = \"{name}\"\n[[builder.step]]\nrun = [\"true\"]\n"))
}

fn worker_name(name: &str) -> String {
    before(&format!("[[worker]]\nname = \"{name}\""))
}

#[test]
fn fn12_bad_names_are_refused_and_shown_without_harm() {
    assert_eq!(
        builder_name("a\\u001b[31mb"),
        "x.toml:2: builder[1].name: the name `a\\u{1b}[31mb` has the control character U+001B\n    fix: use visible characters only"
    );
    assert_eq!(
        builder_name("a\u{202e}b"),
        "x.toml:2: builder[1].name: the name has the invisible or direction mark U+202E\n    \
         fix: remove the mark: names that look the same must be the same"
    );
    assert_eq!(
        builder_name(&"x".repeat(200)),
        "x.toml:2: builder[1].name: the name has 200 characters; 199 are the most\n    fix: give it a shorter name"
    );
    assert!(load(&BUILDER.replace("\"b\"", &format!("\"{}\"", "é".repeat(199)))).is_ok());
    assert_eq!(
        builder_name(""),
        "x.toml:2: builder[1].name: the name is empty\n    fix: give it a name"
    );
    assert_eq!(
        builder_name("a "),
        "x.toml:2: builder[1].name: the name `a ` begins or ends with a blank\n    fix: remove the blank"
    );
    assert_eq!(
        builder_name("a/b"),
        "x.toml:2: builder[1].name: the name `a/b` has a `/`, which parts of addresses and folders are told apart by\n    \
         fix: use `-` or `_` instead"
    );
    assert_eq!(
        worker_name("a b"),
        "x.toml:2: worker[1].name: `a b` has a ` `, and it is used as the name of a folder\n    \
         fix: use the letters a-z and A-Z, digits, `.`, `_` and `-`"
    );
    assert_eq!(
        worker_name(".hidden"),
        "x.toml:2: worker[1].name: `.hidden` is used as the name of a folder and begins with `.` or `-`\n    \
         fix: begin it with a letter or a digit"
    );
    assert_eq!(
        worker_name(".."),
        "x.toml:2: worker[1].name: `..` cannot be a name\n    fix: use letters and digits"
    );
    // An unknown key is shown without harm, too.
    assert_eq!(
        before("[master]\n\"a\\u001b[2J\\u202e\" = 1"),
        "x.toml:2: master.a\\u{1b}[2J\\u{202e}: unknown key\n    \
         fix: remove it; known here are: title, data_dir, http, listen, insecure, drain, merge, allowed_origins, ui_dir"
    );
}

#[test]
fn addresses_that_others_can_reach_are_refused() {
    let why = "can be reached from other machines, and there is no TLS and no sign-in yet: \
               whoever reaches it can run programs on your workers";
    assert_eq!(
        before("[master]\nhttp = \"0.0.0.0:8010\"\nlisten = \"[::]:9989\""),
        format!(
            "x.toml:2: master.http: 0.0.0.0:8010 {why}\n    fix: listen on 127.0.0.1:8010, or allow it with insecure = true in [master]\n\
             x.toml:3: master.listen: [::]:9989 {why}\n    fix: listen on 127.0.0.1:9989, or allow it with insecure = true in [master]"
        )
    );
    let allowed = notes(&format!(
        "[master]\nhttp = \"192.0.2.1:80\"\ninsecure = true\n[[worker]]\nname = \"w\"\n{}",
        BUILDER.replace("name = \"b\"", "name = \"b\"\nworker = \"w\"")
    ));
    assert_eq!(
        allowed,
        "x.toml:2: master.http: 192.0.2.1:80 can be reached from other machines, without TLS and sign-in\n    \
         fix: put a proxy with TLS and sign-in before it, or listen on 127.0.0.1"
    );
}

#[test]
fn addresses_that_are_none_are_refused() {
    assert_eq!(
        before("[master]\nhttp = \"localhost:80\"\nlisten = 9989"),
        "x.toml:2: master.http: `localhost:80` is no address with a port\n    \
         fix: write numbers, for example \"127.0.0.1:8010\" or \"[::1]:8010\"\n\
         x.toml:3: master.listen: a text is wanted here, and this is a whole number\n    \
         fix: write it in quotes: \"…\""
    );
    assert_eq!(
        before("[master]\nhttp = \"127.0.0.1:80\"\nlisten = \"127.0.0.1:80\""),
        "x.toml:3: master.listen: `http` and `listen` are both 127.0.0.1:80\n    fix: give each a port of its own"
    );
    assert!(
        load(&format!("[master]\nhttp = \"127.0.0.1:0\"\nlisten = \"127.0.0.1:0\"\n{BUILDER}"))
            .is_ok()
    );
}

#[test]
fn locks_that_cannot_be_had_are_refused() {
    let lock = "[[lock]]\nname = \"gpu\"\nmax_count = 2\n";
    let with = |locks: &str| {
        faults(&format!(
            "{lock}{}",
            BUILDER.replace("name = \"b\"", &format!("name = \"b\"\nlocks = [{locks}]"))
        ))
    };
    assert_eq!(
        with("\"gpv\""),
        "x.toml:6: builder[1].locks: there is no lock `gpv`\n    fix: did you mean `gpu`?"
    );
    assert_eq!(
        with("{ name = \"gpu\", count = 3 }"),
        "x.toml:6: builder[1].locks: 3 of lock `gpu` can never be had: its max_count is 2\n    \
         fix: take fewer, or raise the lock's max_count"
    );
    assert_eq!(
        with("\"gpu\", \"gpu\""),
        "x.toml:6: builder[1].locks: lock `gpu` is named twice\n    fix: name it once, with a count"
    );
    assert_eq!(
        with("{ nam = \"gpu\" }, 1"),
        "x.toml:6: builder[1].locks[1].nam: unknown key\n    fix: did you mean `name`?\n\
         x.toml:6: builder[1].locks[1].name: it has no name\n    fix: add a line such as name = \"…\"\n\
         x.toml:6: builder[1].locks: a lock is a name or a table\n    fix: write \"NAME\" or { name = \"NAME\", count = 2 }"
    );
    assert_eq!(
        before("[[lock]]\nname = \"l\"\nkind = \"global\""),
        "x.toml:3: lock[1].kind: `global` is not known here\n    fix: write \"master\" or \"worker\""
    );
}

#[test]
fn b09_a_merge_policy_that_is_none_is_refused() {
    const FIX: &str = "write \"none\", \"same source\", or a list of properties that must be \
                       equal besides the source: [\"channel\"]";
    let refused = |value: &str| builder(&format!("merge = {value}\n"));
    assert_eq!(
        refused("\"all\""),
        format!("x.toml:3: builder[1].merge: `all` is not known here\n    fix: {FIX}")
    );
    assert_eq!(
        refused("[]"),
        format!("x.toml:3: builder[1].merge: the list names no property\n    fix: {FIX}")
    );
    assert_eq!(
        refused("true"),
        format!("x.toml:3: builder[1].merge: a text or a list is wanted here\n    fix: {FIX}")
    );
    assert_eq!(
        refused("[\"a\", \"a\", \" \"]"),
        format!(
            "x.toml:3: builder[1].merge: property `a` is named twice\n    fix: name it once\n\
             x.toml:3: builder[1].merge: a property needs a name\n    fix: {FIX}"
        )
    );
    assert_eq!(
        builder("max_builds = 0\n"),
        "x.toml:3: builder[1].max_builds: 0 is out of range\n    fix: write a whole number from 1 to 4294967295"
    );
}

#[test]
fn a_step_does_exactly_one_thing() {
    let fix = "    fix: write one of run = [\"program\", \"argument\"], shell = \"a line\" or git = \"URL\"";
    assert_eq!(
        step("name = \"s\""),
        format!("x.toml:3: builder[1].step[1].run: the step has nothing to do\n{fix}")
    );
    assert_eq!(
        step("run = [\"a\"]\nshell = \"b\""),
        format!("x.toml:5: builder[1].step[1].shell: the step has `run` and `shell`\n{fix}")
    );
    assert_eq!(
        step("run = \"make test\""),
        "x.toml:4: builder[1].step[1].run: a list is wanted here, and this is a text\n    \
         fix: write a list: run = [\"program\", \"argument\"], or use shell = \"a line\""
    );
    assert_eq!(
        step("run = []"),
        "x.toml:4: builder[1].step[1].run: no program is named\n    fix: write run = [\"program\", \"argument\"]"
    );
    assert_eq!(
        step("shell = \" \""),
        "x.toml:4: builder[1].step[1].shell: the line is empty or has a NUL character\n    fix: write what /bin/sh shall run"
    );
    assert_eq!(
        step("git = \"--upload-pack=x\""),
        "x.toml:4: builder[1].step[1].git: `--upload-pack=x` is no repository\n    \
         fix: write a URL or a path, for example git = \".\""
    );
    assert_eq!(
        step("run = [\"a\"]\ndepth = 1"),
        "x.toml:5: builder[1].step[1].depth: `depth` means something in a git step only\n    \
         fix: remove it, or move it to the git step"
    );
    assert_eq!(
        faults("[[builder]]\nname = \"b\"\n"),
        "x.toml:1: builder[1].step: the builder has no steps\n    \
         fix: add a [[builder.step]] below it, for example with run = [\"make\", \"test\"]"
    );
}

#[test]
fn the_details_of_a_step_are_checked() {
    assert_eq!(
        step("run = [\"a\"]\nworkdir = \"../x\""),
        "x.toml:5: builder[1].step[1].workdir: `../x` is not inside the build's folder\n    \
         fix: write a folder relative to the build's own, without `..`"
    );
    assert_eq!(
        step("run = [\"a\"]\ntimeout = \"0s\"\nmax_time = \"fast\""),
        "x.toml:5: builder[1].step[1].timeout: a step cannot end in no time\n    \
         fix: write for example \"20 min\", or \"off\" for no limit\n\
         x.toml:6: builder[1].step[1].max_time: a whole number was expected at `fast`\n    \
         fix: write whole numbers with units ms, s, min, h or d, for example \"90s\", \"2 min\" or \"1h30m\""
    );
    assert_eq!(
        step("run = [\"a\"]\nalways_run = \"yes\""),
        "x.toml:5: builder[1].step[1].always_run: true or false is wanted here, and this is a text\n    \
         fix: write true or false, without quotes"
    );
    assert_eq!(
        step(&format!("run = [\"a\"]\nname = \"{}\"", "n".repeat(51))),
        "x.toml:5: builder[1].step[1].name: the name has 51 characters; 50 are the most\n    fix: give it a shorter name"
    );
}

#[test]
fn tables_are_told_from_values() {
    assert_eq!(
        faults("builder = 3\nmaster = \"x\"\n[[worker]]\nname = \"w\"\n"),
        "x.toml:1: builder: a list of tables is wanted here, and this is a whole number\n    \
         fix: write [[builder]] on a line of its own, once for each\n\
         x.toml:2: master: a table is wanted here, and this is a text\n    \
         fix: write [master] on a line of its own"
    );
    assert_eq!(
        faults("[builder]\nname = \"b\"\n"),
        "x.toml:1: builder: a list of tables is wanted here, and this is a table\n    \
         fix: write [[builder]] on a line of its own, once for each"
    );
    assert_eq!(
        faults("[[builder]]\nname = \"b\"\nstep = \"make\"\n"),
        "x.toml:3: builder[1].step: a list of tables is wanted here, and this is a text\n    \
         fix: write [[builder.step]] on a line of its own, once for each"
    );
}

#[test]
fn no_text_makes_the_reader_panic() {
    let good = std::fs::read_to_string("config/fleet.toml").unwrap();
    // Every fourth place is cut and broken; the answer may be anything but a panic.
    for place in (0..good.len()).step_by(4).filter(|place| good.is_char_boundary(*place)) {
        let cut = &good[..place];
        let _ = load(cut);
        for junk in ["\"", "]", "[[", "= 1\n", "\u{0}", "é"] {
            let _ = load(&format!("{cut}{junk}"));
        }
    }
    assert!(load(&good).is_ok());
}
