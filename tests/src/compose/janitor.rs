//! Removes a stack's containers, volumes, network and directory when its test process is done with it, however it ended.
//!
//! A shared stack lives in a static, which Rust never drops, and a killed test drops nothing at all. So a small shell
//! waits for the end of its standard input, whose other end only the test process holds. The slot's lock is its
//! standard output: the slot is free for the next stack only when the removal is over.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::engine::Engine;

/// Label of the containers that run beside Compose's own; its value is the project.
pub(super) const PROGRAM_LABEL: &str = "stock.test.stack";

/// Containers first and by force: nobody needs the clean shutdown Compose would wait for.
/// Arguments: `$0` client, `$1` project, `$2` directory or nothing, then the words of Compose.
const SCRIPT: &str = r#"cat >/dev/null
docker=$0 project=$1 directory=$2
shift 2
for label in stock.test.stack com.docker.compose.project; do
  containers=$("$docker" ps -aq --filter "label=$label=$project")
  [ -z "$containers" ] || "$docker" rm -fv $containers
done
"$@" down -v --remove-orphans
status=$?
[ -z "$directory" ] || rm -rf -- "$directory"
exit $status
"#;

/// Guards one stack.
#[derive(Debug)]
pub(super) struct Janitor(Child);

impl Janitor {
    /// Waits for the end of this process or of the value.
    pub(super) fn watch(engine: &Engine, project: &str, directory: &Path, slot: File) -> Result<Self> {
        let mut command = script(engine, project, &directory.display().to_string());
        command.stdin(Stdio::piped()).stderr(slot.try_clone()?).stdout(slot);
        // Ctrl-C at the terminal ends the tests; the janitor has its work still before it then.
        command.process_group(0);
        command.spawn().map(Self).context("cannot start the janitor of a compose stack")
    }

    /// Removes what an earlier stack of this project left behind, now.
    pub(super) fn sweep(engine: &Engine, project: &str) -> Result<()> {
        let output = script(engine, project, "").stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("cannot remove the remains of project {project}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

fn script(engine: &Engine, project: &str, directory: &str) -> Command {
    let mut command = engine.command("sh");
    command.args(["-c", SCRIPT, engine.client(), project, directory]).args(engine.compose_words(project));
    command
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Only to reap it; there is nothing to do about an error.
        let _best_effort = self.0.wait();
    }
}
