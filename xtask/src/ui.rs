//! `cargo xtask ui`: Buildbot's own web pages in a headless browser against
//! this program.
//!
//! Owns how the pages and the browser are found. What is looked at is in
//! `tests/stock_ui`.

use std::path::{Path, PathBuf};

use crate::report;
use crate::root;
use crate::tools;

/// Names that Chromium has on one system or another.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// What was asked for.
#[derive(PartialEq, Eq, Debug, Default)]
struct Options {
    pages: Option<PathBuf>,
    browser: Option<PathBuf>,
    filter: Vec<String>,
}

/// Gets what is needed and runs the tests; true when all went well.
///
/// # Errors
/// When the arguments are wrong, or something is missing and cannot be had.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("ui", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    let folder = root::target().join("stock-ui");
    let browser = match options.browser {
        Some(browser) => browser,
        None => tools::need_package(&BROWSERS, "chromium")
            .map_err(|error| format!("{error}, or name one with --browser PATH"))?,
    };
    let pages = match options.pages {
        Some(pages) => pages,
        None => pages(&folder)?,
    };
    let shots = folder.join("shots");
    report::say(&format!("pages in {}, pictures in {}", pages.display(), shots.display()));
    let mut command = tools::need(tools::NEXTEST)?;
    command
        .args(["run", "--workspace", "--test", "stock_ui", "--run-ignored", "only"])
        .args(["--no-fail-fast", "--test-threads", "1"])
        .args(&options.filter)
        .env("BOTMASTER_STOCK_UI", &pages)
        .env("BOTMASTER_BROWSER", &browser)
        .env("BOTMASTER_SHOTS", &shots);
    match command.status() {
        Ok(status) => Ok(status.success()),
        Err(error) => Err(format!("could not start cargo nextest: {error}")),
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || -> Result<PathBuf, String> {
            let given = rest.next().ok_or_else(|| format!("{argument} wants a path"))?;
            std::path::absolute(given).map_err(|error| format!("{given}: {error}"))
        };
        match argument.as_str() {
            "--ui-dir" => options.pages = Some(value()?),
            "--browser" => options.browser = Some(value()?),
            flag if flag.starts_with('-') => {
                return Err(format!("there is no option `{flag}`; see `cargo xtask help ui`"));
            }
            filter => options.filter.push(filter.to_owned()),
        }
    }
    Ok(options)
}

/// The folder with the pages, filled from PyPI when it is not there yet.
fn pages(folder: &Path) -> Result<PathBuf, String> {
    let list = root::root().join("tests/stock_ui/packages.txt");
    let wanted = std::fs::read_to_string(&list)
        .map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let pages = folder.join("pages");
    let done = folder.join("pages.txt");
    if std::fs::read_to_string(&done).is_ok_and(|had| had == wanted) {
        return Ok(pages);
    }
    report::say("getting Buildbot's pages from PyPI");
    let mut install = tools::pip_into(&pages)?;
    install.args(["--no-deps", "--require-hashes", "--requirement"]).arg(&list);
    tools::succeed(install, "python3 -m pip")?;
    std::fs::write(&done, wanted)
        .map_err(|error| format!("cannot write {}: {error}", done.display()))?;
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Options, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&words)
    }

    #[test]
    fn options_are_paths_and_the_rest_chooses_tests() {
        let options = parsed(&["--browser", "/usr/bin/chrome", "every_page"]).unwrap();
        assert_eq!(options.browser.as_deref(), Some(Path::new("/usr/bin/chrome")));
        assert_eq!(options.filter, ["every_page"]);
        assert!(parsed(&["--ui-dir"]).unwrap_err().contains("wants a path"));
        assert!(parsed(&["--shots"]).unwrap_err().contains("no option `--shots`"));
    }
}
