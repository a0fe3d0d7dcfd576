//! How long things are kept: what good words come to, and what is said of bad ones.

use std::time::Duration;

use botmaster::core::retention::Retention;

use crate::{faults, load, notes};

const STEP: &str = "[[builder.step]]\nrun = [\"true\"]\n";

#[test]
fn without_a_word_everything_is_kept() {
    let settings = load(&format!("[[builder]]\nname = \"b\"\n{STEP}")).unwrap().settings;
    assert!(settings.retention.keep_all());
}

#[test]
fn a_builders_own_words_win_over_the_general_ones() {
    let text = format!(
        "[retention]\nbuilds = 1000\nage = \"730d\"\nlog_age = \"30d\"\nsize = \"20 GiB\"\n\
         [[builder]]\nname = \"a\"\nretention = {{ builds = 5, size = \"1 MB\" }}\n{STEP}\
         [[builder]]\nname = \"b\"\n{STEP}[[builder]]\nname = \"c\"\n\
         [builder.retention]\nage = \"1 d\"\nlog_age = \"1 h\"\n{STEP}"
    );
    let rules = load(&text).unwrap().settings.retention;
    let day = Duration::from_secs(86_400);
    let general = Retention {
        builds: Some(1000),
        age: Some(730 * day),
        log_age: Some(30 * day),
        size: Some(20 << 30),
    };
    assert_eq!(rules.all, general);
    let own = Retention { builds: Some(5), size: Some(1_000_000), ..general };
    assert_eq!(rules.of(&"a".into()), own);
    assert_eq!(rules.of(&"b".into()), Retention { size: None, ..general });
    let short = Retention { age: Some(day), log_age: Some(day / 24), size: None, ..general };
    assert_eq!(rules.of(&"c".into()), short);
}

#[test]
fn fc01_bad_words_have_their_line_key_and_fix() {
    let text = faults(&format!(
        "[retention]\nbuilds = 0\nage = \"0s\"\nsize = \"20\"\nlog_age = \"tomorrow\"\nagee = 1\n\
         [[builder]]\nname = \"b\"\nretention = 5\n{STEP}"
    ));
    for part in [
        "x.toml:2: retention.builds: 0 is out of range\n    fix: write a whole number from 1 to",
        "x.toml:3: retention.age: nothing would be kept\n    fix: write for example \"90d\"",
        "x.toml:4: retention.size: the number 20 has no unit\n    fix: write a whole number with",
        "x.toml:5: retention.log_age: a whole number was expected at `tomorrow`",
        "x.toml:6: retention.agee: unknown key\n    fix: did you mean `age`?",
        "x.toml:9: builder[1].retention: a table is wanted here, and this is a whole number",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    let text =
        faults(&format!("[[builder]]\nname = \"b\"\nretention = {{ size = 20, age = 5 }}\n{STEP}"));
    assert!(text.contains("builder[1].retention.size: a size is wanted here"), "{text}");
    assert!(text.contains("builder[1].retention.age: a duration is wanted here"), "{text}");
}

#[test]
fn logs_that_would_outlive_their_builds_are_noted() {
    let text =
        format!("[retention]\nage = \"9d\"\nlog_age = \"9d\"\n[[builder]]\nname = \"b\"\n{STEP}");
    assert!(notes(&text).contains("retention.log_age: the logs of a build go with it"), "{text}");
}
