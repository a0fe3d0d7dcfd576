//! Sizes as people write them: `20 GiB`, `500 MB`.

/// What to write instead of a text that is no size.
pub const SIZE_FIX: &str =
    "write a whole number with a unit kB, MB, GB, TB, KiB, MiB, GiB or TiB, for example \"20 GiB\"";

/// Why a text is no size.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SizeError {
    /// A number was expected.
    #[error("a whole number was expected at `{0}`")]
    NoNumber(String),
    /// A number without a unit.
    #[error("the number {0} has no unit")]
    NoUnit(String),
    /// A unit that does not exist.
    #[error("`{0}` is no unit of size")]
    UnknownUnit(String),
    /// More than fits.
    #[error("the size is too large")]
    TooLarge,
}

/// Reads a size, in bytes.
///
/// # Errors
/// When the text is no whole number followed by a unit.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    if number.is_empty() {
        return Err(SizeError::NoNumber(text.chars().take(20).collect()));
    }
    let scale: u64 = match unit {
        "" => return Err(SizeError::NoUnit(number.chars().take(20).collect())),
        "B" | "byte" | "bytes" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(SizeError::UnknownUnit(unit.chars().take(20).collect())),
    };
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    number.checked_mul(scale).filter(|size| *size <= 1 << 60).ok_or(SizeError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("20 GiB"), Ok(20 << 30));
        assert_eq!(parse_size("500MB"), Ok(500_000_000));
        assert_eq!(parse_size("20"), Err(SizeError::NoUnit("20".into())));
        assert_eq!(parse_size("GiB"), Err(SizeError::NoNumber("GiB".into())));
        assert_eq!(parse_size("2 gib"), Err(SizeError::UnknownUnit("gib".into())));
        assert_eq!(parse_size("99999999 TiB"), Err(SizeError::TooLarge));
    }
}
