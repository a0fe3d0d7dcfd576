//! Reads values out of a parsed TOML file and collects everything that is wrong
//! with it, each with its line. It does not stop at the first fault: whoever
//! edits a configuration wants to hear of all of them at once. That is why the
//! spanned tree is read here and not through `serde`, which stops at one.
//!
//! What is deliberately absent: what the settings mean. See `load` and
//! `builders`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::durations::{DURATION_FIX, LONGEST, parse_long_duration};
use super::names::{is_hidden, nearest};
use super::sizes::{SIZE_FIX, parse_size};
use super::types::Problem;

/// What was found in a file so far.
pub(super) struct Report<'i> {
    file: String,
    text: &'i str,
    errors: RefCell<Vec<Problem>>,
    notes: RefCell<Vec<Problem>>,
}

impl<'i> Report<'i> {
    pub(super) fn new(file: String, text: &'i str) -> Self {
        Self { file, text, errors: RefCell::default(), notes: RefCell::default() }
    }

    /// Line and column of a byte, both from 1.
    pub(super) fn place(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        (line, column)
    }

    fn problem(
        &self,
        at: Option<&Range<usize>>,
        key: &str,
        message: String,
        fix: String,
    ) -> Problem {
        Problem {
            file: self.file.clone(),
            line: at.map(|span| self.place(span.start).0),
            key: visible(key),
            message: visible(&message),
            fix: visible(&fix),
        }
    }

    pub(super) fn error(
        &self,
        at: Option<&Range<usize>>,
        key: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let problem = self.problem(at, key, message.into(), fix.into());
        self.errors.borrow_mut().push(problem);
    }

    pub(super) fn note(
        &self,
        at: Option<&Range<usize>>,
        key: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let problem = self.problem(at, key, message.into(), fix.into());
        self.notes.borrow_mut().push(problem);
    }

    /// Errors and notes, each in the order of the file.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        let (mut errors, mut notes) = (self.errors.into_inner(), self.notes.into_inner());
        errors.sort_by_key(|problem| problem.line);
        notes.sort_by_key(|problem| problem.line);
        (errors, notes)
    }
}

/// A text for people: what the file holds must not steer their terminals.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_hidden(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Said<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// One table of the file.
pub(super) struct Section<'r, 'i> {
    pub(super) report: &'r Report<'i>,
    /// Path to this table, empty for the file itself.
    path: String,
    pub(super) span: Range<usize>,
    table: Option<&'r DeTable<'i>>,
}

fn a(kind: &DeValue<'_>) -> &'static str {
    match kind {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'r, 'i> Section<'r, 'i> {
    /// Opens a table and reports every key that is not `known`.
    pub(super) fn open(
        report: &'r Report<'i>,
        path: String,
        span: Range<usize>,
        table: &'r DeTable<'i>,
        known: &[&str],
    ) -> Self {
        let section = Self { report, path, span, table: Some(table) };
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let fix = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("remove it; known here are: {}", known.join(", ")),
            };
            report.error(Some(&key.span()), &section.key(name), "unknown key", fix);
        }
        section
    }

    /// A table that is not there.
    pub(super) fn absent(report: &'r Report<'i>, path: &str) -> Self {
        Self { report, path: path.to_owned(), span: 0..0, table: None }
    }

    /// The whole path of a key of this table.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn error(
        &self,
        at: &Range<usize>,
        name: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.report.error(Some(at), &self.key(name), message, fix);
    }

    /// Where a key was written.
    pub(super) fn key_span(&self, name: &str) -> Option<Range<usize>> {
        self.table?.get_key_value(name).map(|(key, _)| key.span())
    }

    pub(super) fn raw(&self, name: &str) -> Option<&'r Spanned<DeValue<'i>>> {
        self.table?.get(name)
    }

    fn wrong(&self, name: &str, value: &Spanned<DeValue<'_>>, wanted: &str, fix: &str) {
        let message = format!("{wanted} is wanted here, and this is {}", a(value.get_ref()));
        self.error(&value.span(), name, message, fix);
    }

    pub(super) fn text(&self, name: &str) -> Option<Said<String>> {
        let value = self.raw(name)?;
        match value.get_ref() {
            DeValue::String(text) => {
                Some(Said { value: text.clone().into_owned(), span: value.span() })
            }
            _ => {
                self.wrong(name, value, "a text", "write it in quotes: \"…\"");
                None
            }
        }
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let value = self.raw(name)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(*flag);
        }
        self.wrong(name, value, "true or false", "write true or false, without quotes");
        None
    }

    pub(super) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.raw(name)?;
        let fix = format!("write a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong(name, value, "a whole number", &fix);
            return None;
        };
        match i128::from_str_radix(number.as_str(), number.radix()).map(u64::try_from) {
            Ok(Ok(number)) if range.contains(&number) => Some(number),
            _ => {
                let message = format!("{} is out of range", number.as_str());
                self.error(&value.span(), name, message, fix);
                None
            }
        }
    }

    pub(super) fn duration(&self, name: &str) -> Option<Said<Duration>> {
        self.span(name, LONGEST)
    }

    /// A size, in bytes.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        let value = self.raw(name)?;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong(name, value, "a size", SIZE_FIX);
            return None;
        };
        match parse_size(text) {
            Ok(size) => Some(size),
            Err(error) => {
                self.error(&value.span(), name, error.to_string(), SIZE_FIX);
                None
            }
        }
    }

    /// A duration that is no longer than this.
    pub(super) fn span(&self, name: &str, longest: Duration) -> Option<Said<Duration>> {
        let value = self.raw(name)?;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong(name, value, "a duration", DURATION_FIX);
            return None;
        };
        match parse_long_duration(text, longest) {
            Ok(duration) => Some(Said { value: duration, span: value.span() }),
            Err(error) => {
                self.error(&value.span(), name, error.to_string(), DURATION_FIX);
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let said = self.text(name)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == said.value) {
            return Some(*value);
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let message = format!("`{}` is not known here", said.value);
        self.error(&said.span, name, message, format!("write {}", known.join(" or ")));
        None
    }

    pub(super) fn list(&self, name: &str) -> Option<&'r DeArray<'i>> {
        let value = self.raw(name)?;
        if let DeValue::Array(items) = value.get_ref() {
            return Some(items);
        }
        self.wrong(name, value, "a list", "write it in brackets: [\"…\", \"…\"]");
        None
    }

    pub(super) fn texts(&self, name: &str) -> Option<Vec<Said<String>>> {
        let items = self.list(name)?;
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(Said { value: text.clone().into_owned(), span: item.span() });
                }
                other => {
                    let message =
                        format!("a list of texts is wanted here, and it holds {}", a(other));
                    self.error(&item.span(), name, message, "write each in quotes: [\"…\", \"…\"]");
                }
            }
        }
        Some(texts)
    }

    /// A table whose values are texts, such as an environment (row B01).
    pub(super) fn text_map(&self, name: &str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        let Some(value) = self.raw(name) else {
            return map;
        };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(name, value, "a table", "write { NAME = \"value\" }");
            return map;
        };
        for (key, value) in table {
            let inner = format!("{name}.{}", key.get_ref());
            if key.get_ref().is_empty() || key.get_ref().contains(['=', '\0']) {
                let message = "a name here must not be empty and has no `=`";
                self.error(&key.span(), &inner, message, "use letters, digits and `_`");
                continue;
            }
            match value.get_ref() {
                DeValue::String(text) if text.contains('\0') => {
                    self.error(&value.span(), &inner, "the value has a NUL character", "remove it");
                }
                DeValue::String(text) => {
                    map.insert(key.get_ref().clone().into_owned(), text.clone().into_owned());
                }
                _ => self.wrong(&inner, value, "a text", "write the value in quotes: \"…\""),
            }
        }
        map
    }

    /// A table inside this one; an absent one when it is not there.
    pub(super) fn table(&self, name: &str, known: &[&str]) -> Section<'r, 'i> {
        let path = self.key(name);
        let Some(value) = self.raw(name) else {
            return Section::absent(self.report, &path);
        };
        if let DeValue::Table(table) = value.get_ref() {
            return Section::open(self.report, path, value.span(), table, known);
        }
        let fix = format!("write [{}] on a line of its own", header(&path));
        self.wrong(name, value, "a table", &fix);
        Section::absent(self.report, &path)
    }

    /// All tables of one kind, `[[name]]`. Their paths count from 1.
    pub(super) fn tables(&self, name: &str, known: &[&str]) -> Vec<Section<'r, 'i>> {
        let path = self.key(name);
        let fix = format!("write [[{}]] on a line of its own, once for each", header(&path));
        let Some(value) = self.raw(name) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong(name, value, "a list of tables", &fix);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    let path = format!("{path}[{}]", index + 1);
                    sections.push(Section::open(self.report, path, item.span(), table, known));
                }
                _ => self.wrong(name, item, "a table", &fix),
            }
        }
        sections
    }
}

/// The path that a person writes has no numbers in it.
fn header(path: &str) -> String {
    let parts = path.split('.').map(|part| part.split('[').next().unwrap_or(part));
    parts.collect::<Vec<_>>().join(".")
}

/// A required name; nothing when it is missing.
pub(super) fn required_name(section: &Section<'_, '_>) -> Option<Said<String>> {
    if section.raw("name").is_none() {
        let message = "it has no name";
        section.error(&section.span, "name", message, "add a line such as name = \"…\"");
    }
    section.text("name")
}

/// Reports a name that was there before.
pub(super) fn check_new(
    section: &Section<'_, '_>,
    what: &str,
    said: &Said<String>,
    before: &mut BTreeMap<String, Range<usize>>,
) {
    if let Some(first) = before.get(&said.value) {
        let line = section.report.place(first.start).0;
        let message = format!("there is a {what} `{}` already, in line {line}", said.value);
        section.error(&said.span, "name", message, "give one of them another name");
    } else {
        before.insert(said.value.clone(), said.span.clone());
    }
}
