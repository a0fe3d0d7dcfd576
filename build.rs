//! Tells the linker which functions to lay side by side
//! (`docs/decisions/0124-functions-that-run-lie-together.md`).

fn main() {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let file = "build/hot-functions.ld";
    println!("cargo:rerun-if-changed={file}");
    // The script is in the words that GNU's linker and LLVM's both know.
    let knows_it = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if knows_it && is("PROFILE", "release") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bin=botmaster=-Wl,--script={folder}/{file}");
        // For `cargo xtask hot-functions`: what lies where.
        println!("cargo:rerun-if-env-changed=BOTMASTER_LINK_MAP");
        if let Ok(map) = std::env::var("BOTMASTER_LINK_MAP") {
            println!("cargo:rustc-link-arg-bin=botmaster=-Wl,--no-demangle,-Map={map}");
        }
    }
}
