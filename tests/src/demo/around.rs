//! The lines with which to look around. Each is printed as it is typed, and run as it is printed.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::backend::{PROCESSOR_PORTS, SOURCE_URL, TARGET_URL};
use super::screen::{quote, say, tell};

/// A line, what it needs, and what its output must contain here.
struct Line {
    tool: &'static str,
    command: String,
    contains: &'static str,
}

fn lines() -> Vec<Line> {
    let line = |tool, command: String, contains| Line { tool, command, contains };
    vec![
        line("kcat", "kcat -b localhost:29092 -C -t warehouse.stock.deltas -e -K:".into(), "\"remains\""),
        line("kcat", "kcat -b localhost:29092 -C -t warehouse.orders.transactions -e -K:".into(), "63703d1f"),
        line("psql", format!("psql {TARGET_URL} -c 'SELECT * FROM remains.remains ORDER BY good_id'"), "cnt"),
        line(
            "psql",
            format!("psql {SOURCE_URL} -c 'SELECT * FROM orders.transactions ORDER BY created_at'"),
            "63703d1f",
        ),
        line("curl", format!("curl -s localhost:{}/metrics", PROCESSOR_PORTS[0]), "processor_commits_total"),
    ]
}

/// Installs what the lines need, where that is possible; says exactly what it cannot install.
pub(super) fn provide_tools() {
    for (tool, package) in [("kcat", "kcat"), ("psql", "postgresql-client"), ("curl", "curl")] {
        if is_there(tool) {
            continue;
        }
        tell(format_args!("installing {tool} (apt-get install {package})"));
        if let Err(error) = install(package) {
            tell(format_args!("cannot install {tool}: {error:#}"));
            tell(format_args!("To do, if you want to look around with it: apt-get install {package}"));
        }
    }
}

/// Runs every line, shows the beginning of its output, and fails when it does not show what it must.
pub(super) fn look() -> Result<()> {
    for line in lines() {
        say("");
        say(&line.command);
        if !is_there(line.tool) {
            tell(format_args!("({} is not installed here)", line.tool));
            continue;
        }
        let output = Command::new("sh").args(["-c", &line.command]).output().context("cannot run sh")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the line above failed ({}): {errors}", output.status);
        ensure!(text.contains(line.contains), "the line above does not show {:?}, but: {text}", line.contains);
        quote(&text, 6);
    }
    Ok(())
}

fn install(package: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root may install packages");
    }
    for arguments in [&["-qq", "update"][..], &["-qq", "-y", "--no-install-recommends", "install", package]] {
        let output = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").output();
        let output = output.context("there is no apt-get here")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn is_there(tool: &str) -> bool {
    Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", tool]).status().is_ok_and(|status| status.success())
}
