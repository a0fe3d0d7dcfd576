//! Exit codes, one meaning each. Usage errors end with 2, by `clap`.

use crate::core::values::BuildResult;

/// All went well.
pub const OK: u8 = 0;
/// It did not work, or the build failed.
pub const FAILED: u8 = 1;
/// The build ended in another way: exception, retry, cancelled, stopped.
pub const OTHER: u8 = 2;
/// The program itself is at fault (`EX_SOFTWARE`).
pub const SOFTWARE: u8 = 70;
/// It may work later: nobody answers, nobody takes the build (`EX_TEMPFAIL`).
pub const TEMPORARY: u8 = 75;
/// The configuration is bad (`EX_CONFIG`).
pub const CONFIG: u8 = 78;

/// The exit code for a build's result.
#[must_use]
pub fn of_result(result: BuildResult) -> u8 {
    match result {
        BuildResult::Success | BuildResult::Warnings | BuildResult::Skipped => OK,
        BuildResult::Failure => FAILED,
        BuildResult::Exception | BuildResult::Retry | BuildResult::Cancelled => OTHER,
    }
}
