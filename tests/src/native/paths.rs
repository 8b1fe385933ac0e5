//! Where the native stack puts things: downloads, run directories, our own binaries.
//!
//! Owns every path decision, so that nothing else looks at the environment. Never creates a file outside the build
//! directory, the system's temporary directory, or a directory the caller named.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The cargo profile directory of the running executable (`target/debug`, `target/release`).
///
/// Taken from the executable's own place because `CARGO_BIN_EXE_*` is not set for binaries of other packages, and
/// because it is right whatever `CARGO_TARGET_DIR` says.
pub(super) fn profile_directory() -> Result<PathBuf> {
    let executable = std::env::current_exe().context("cannot tell where this executable is")?;
    let directory = executable.parent().context("the executable has no directory")?;
    let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    Ok(directory.to_path_buf())
}

/// Where downloads are kept between runs: `STACK_CACHE`, or `stack-cache` in the build directory.
pub(super) fn cache_directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("STACK_CACHE") {
        return std::path::absolute(PathBuf::from(directory)).context("STACK_CACHE is no usable path");
    }
    let profile = profile_directory()?;
    Ok(profile.parent().unwrap_or(&profile).join("stack-cache"))
}

/// The top of the checkout.
pub(super) fn workspace_directory() -> PathBuf {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_directory.parent().unwrap_or(crate_directory).to_path_buf()
}

/// Where `stack up` keeps its servers when nobody says otherwise.
///
/// In the checkout, unless PostgreSQL, which must not run as root, could not reach it there (a checkout below `/root`).
pub fn default_up_directory() -> PathBuf {
    let in_checkout = workspace_directory().join(".stack");
    if !running_as_root() || reachable_by_others(&workspace_directory()) {
        in_checkout
    } else {
        std::env::temp_dir().join("native-stack-up")
    }
}

/// A new directory below the system's temporary directory, readable for the user PostgreSQL runs as.
pub(super) fn new_run_directory() -> Result<PathBuf> {
    let directory = tempfile::Builder::new()
        .prefix("native-stack-")
        .tempdir()
        .context("cannot create a directory for the stack")?
        .keep();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Refuses a directory in which PostgreSQL could not run.
pub(super) fn check_reachable(directory: &Path) -> Result<()> {
    if running_as_root() && !reachable_by_others(directory) {
        bail!(
            "PostgreSQL cannot run in {}: it must not run as root, and its user may not enter that path. \
             Choose a directory below {}, or allow others to enter every directory of the path (chmod o+x)",
            directory.display(),
            std::env::temp_dir().display()
        );
    }
    Ok(())
}

pub(super) fn running_as_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn reachable_by_others(path: &Path) -> bool {
    path.ancestors()
        .filter(|ancestor| !ancestor.as_os_str().is_empty())
        .filter_map(|ancestor| fs::metadata(ancestor).ok())
        .all(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_through_a_private_directory_is_not_reachable() {
        let private = tempfile::tempdir().unwrap();
        let inner = private.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!reachable_by_others(&inner));
        fs::set_permissions(private.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(reachable_by_others(&inner));
    }
}
