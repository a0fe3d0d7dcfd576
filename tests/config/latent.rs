//! Latent workers in a configuration.

use std::path::Path;
use std::time::Duration;

use botmaster::core::values::{LatentConfig, Provider};

use crate::{BUILDER, faults, load};

fn latent(lines: &str) -> LatentConfig {
    let text = format!("{BUILDER}[[worker]]\nname = \"w1\"\n[worker.latent]\n{lines}\n");
    let loaded = load(&text).unwrap_or_else(|problems| panic!("{}", crate::joined(&problems)));
    loaded.settings.workers[0].config.latent.clone().expect("it is latent")
}

/// A latent part of these lines, from line 8 on.
fn wrong(lines: &str) -> String {
    faults(&format!("{BUILDER}[[worker]]\nname = \"w1\"\n[worker.latent]\n{lines}\n"))
}

#[test]
fn a_latent_worker_needs_only_a_provider() {
    let standard = latent("provider = \"process\"");
    assert_eq!(standard.substantiate_timeout, Duration::from_secs(20 * 60));
    assert_eq!(standard.idle_timeout, Duration::from_secs(10 * 60));
    let Provider::Process(options) = &standard.provider;
    assert_eq!(options.dir, Path::new("data/instances/work/w1"));
    assert_eq!(options.token_file, Path::new("data/tokens/w1.token"));
    assert!(options.env.is_empty());
    let ordinary = load(&format!("{BUILDER}[[worker]]\nname = \"w1\"\n")).unwrap();
    assert_eq!(ordinary.settings.workers[0].config.latent, None);
}

#[test]
fn a_latent_workers_settings_are_read() {
    let set = latent(
        "provider = \"process\"\nsubstantiate_timeout = \"90s\"\nidle_timeout = \"0s\"\n\
         dir = \"/srv/work\"\nenv = { LANG = \"C\" }",
    );
    assert_eq!((set.substantiate_timeout.as_secs(), set.idle_timeout.as_secs()), (90, 0));
    let Provider::Process(options) = set.provider;
    assert_eq!(options.dir, Path::new("/srv/work"));
    assert_eq!(options.env["LANG"], "C");
    let inline = load(&format!(
        "{BUILDER}[[worker]]\nname = \"w1\"\nlatent = {{ provider = \"process\" }}\n"
    ));
    assert!(inline.unwrap().settings.workers[0].config.latent.is_some());
}

#[test]
fn fc01_mistakes_in_a_latent_part_are_explained() {
    assert_eq!(
        wrong("idle_timeout = \"1m\""),
        "x.toml:7: worker[1].latent.provider: it does not say who makes the instances\n    \
         fix: add provider = \"process\" (worker programs on this machine)"
    );
    assert_eq!(
        wrong("provider = \"docker\""),
        "x.toml:8: worker[1].latent.provider: `docker` is not known here\n    \
         fix: write \"process\""
    );
    assert_eq!(
        wrong("provider = \"process\"\nsubstantiate_timeout = \"10ms\""),
        "x.toml:9: worker[1].latent.substantiate_timeout: 10 ms is too short for a worker to start \
         and attach\n    fix: write \"1s\" or more; \"20m\" is the default"
    );
    assert_eq!(
        wrong("provider = \"process\"\nidle_timout = \"1m\""),
        "x.toml:9: worker[1].latent.idle_timout: unknown key\n    \
         fix: did you mean `idle_timeout`?"
    );
    assert_eq!(
        wrong("provider = \"process\"\ndir = \"\""),
        "x.toml:9: worker[1].latent.dir: the folder's name is empty\n    fix: name a folder, or \
         remove the key: then it is instances/work/NAME in the data folder"
    );
    assert_eq!(
        faults(&format!("{BUILDER}[[worker]]\nname = \"w1\"\nlatent = true\n")),
        "x.toml:7: worker[1].latent: a table is wanted here, and this is true or false\n    \
         fix: write [worker.latent] on a line of its own"
    );
}
