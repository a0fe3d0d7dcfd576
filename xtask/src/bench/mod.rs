//! stub
/// stub
pub fn run(_: &[String]) -> Result<bool, String> {
    Ok(true)
}
