//! Which names are good, and which known name is nearest to a mistaken one.

/// Longest name of a builder, worker or lock, in characters (fault row FN12).
pub const LONGEST_NAME: usize = 199;

/// Longest name of a step, in characters: the Data API's limit.
pub const LONGEST_STEP_NAME: usize = 50;

/// A bad name: what is wrong and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameFault {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

fn fault(message: String, fix: &str) -> Result<(), NameFault> {
    Err(NameFault { message, fix: fix.to_owned() })
}

/// Characters that change the direction of the text around them or cannot be
/// seen: with them two different names look the same.
pub(super) fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
    )
}

/// Checks a name that people read: a builder's, a step's, a lock's.
///
/// # Errors
/// When it is empty, longer than `longest` characters, begins or ends with a
/// blank, or has a `/`, a control character, or an invisible or direction mark.
pub fn check_name(name: &str, longest: usize) -> Result<(), NameFault> {
    if name.trim().is_empty() {
        return fault("the name is empty".to_owned(), "give it a name");
    }
    let length = name.chars().count();
    if length > longest {
        return fault(
            format!("the name has {length} characters; {longest} are the most"),
            "give it a shorter name",
        );
    }
    if name.trim() != name {
        return fault(
            format!("the name `{}` begins or ends with a blank", name),
            "remove the blank",
        );
    }
    for c in name.chars() {
        if c.is_control() {
            return fault(
                format!("the name `{}` has the control character U+{:04X}", name, c as u32),
                "use visible characters only",
            );
        }
        if is_hidden(c) {
            return fault(
                format!("the name has the invisible or direction mark U+{:04X}", c as u32),
                "remove the mark: names that look the same must be the same",
            );
        }
        if c == '/' || c == '\\' {
            return fault(
                format!(
                    "the name `{name}` has a `{c}`, which parts of addresses and folders are told apart by"
                ),
                "use `-` or `_` instead",
            );
        }
    }
    if name == "." || name == ".." {
        return fault(format!("`{name}` cannot be a name"), "use letters and digits");
    }
    Ok(())
}

/// Checks a name that becomes a folder: a worker's, and a builder's folder.
///
/// # Errors
/// As [`check_name`], and when it has anything but ASCII letters, digits, `.`,
/// `_` and `-`, or begins with `.` or `-`.
pub fn check_folder_name(name: &str) -> Result<(), NameFault> {
    check_name(name, LONGEST_NAME)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(c) = name.chars().find(|c| !good(*c)) {
        return fault(
            format!("`{name}` has a `{c}`, and it is used as the name of a folder"),
            "use the letters a-z and A-Z, digits, `.`, `_` and `-`",
        );
    }
    if name.starts_with(['.', '-']) {
        return fault(
            format!("`{name}` is used as the name of a folder and begins with `.` or `-`"),
            "begin it with a letter or a digit",
        );
    }
    Ok(())
}

/// The folder of a builder that names none: its name, with `_` for every
/// character that a folder should not have.
#[must_use]
pub fn folder_for(name: &str) -> String {
    let mut folder: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect();
    if folder.starts_with(['.', '-']) {
        folder.insert(0, '_');
    }
    folder
}

/// The known name nearest to a mistaken one, when one is near.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            let longer = name.chars().count().max(candidate.chars().count());
            *distance <= 1 + longer / 4
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What to do about a name that is not there.
pub(super) fn fix_unknown(what: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("add a [[{what}]] with this name"),
        None => format!("add a [[{what}]] with this name; there are: {}", known.join(", ")),
    }
}
