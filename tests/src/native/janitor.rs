//! Removes a stack's directory when the process that used it is gone, however it went.
//!
//! A shared stack lives in a static, which Rust never drops, and a killed test drops nothing at all. So a small
//! shell waits for the end of its standard input, whose other end only this process holds, and removes the directory.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::spawner;

/// Servers get their SIGKILL at the same moment as the janitor its end of input: a directory that is still written to
/// cannot be removed at the first attempt.
const SCRIPT: &str = "cat >/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10; do sleep 0.5; rm -rf -- \"$0\" 2>/dev/null && break; done";

/// Guards one directory.
#[derive(Debug)]
pub(super) struct Janitor(Child);

impl Janitor {
    pub(super) fn watch(directory: &Path) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).arg(directory).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C at the terminal ends the tests; the janitor has its work still before it then.
        command.process_group(0);
        spawner::spawn(command).map(Self)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Only to reap it; there is nothing to do about an error.
        let _best_effort = self.0.wait();
    }
}
