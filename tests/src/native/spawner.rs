//! The one thread that starts child processes.
//!
//! Servers are started with a parent-death signal, so that they die with the test process however it ends. Linux
//! sends that signal when the *thread* that started the child ends, not the process, and a `#[test]` runs on a thread
//! of its own: started from there, a shared broker would die with the first test. Hence every child is started by
//! this thread, which ends only with the process.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

struct Request {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// Starts `command` from the long-lived thread.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| Mutex::new(start()));
    let (reply, answer) = channel();
    let gone = |_| io::Error::other("the thread that starts processes has ended");
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(Request { command, reply })
        .map_err(|_| io::Error::other("the thread that starts processes has ended"))?;
    answer.recv().map_err(gone)?
}

fn start() -> Sender<Request> {
    let (sender, requests) = channel::<Request>();
    thread::spawn(move || {
        for mut request in requests {
            // A caller that gave up waiting would leak the child, but nobody waits with a time-out here.
            let _unsent = request.reply.send(request.command.spawn());
        }
    });
    sender
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;
    use std::process::Stdio;

    use crate::stack::wait_until;

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let asking = thread::spawn(move || {
            let child = spawn(command).unwrap();
            // The signal is armed once setpriv has become the program itself.
            let name = format!("/proc/{}/comm", child.id());
            wait_until("setpriv to have run", || Ok(fs::read_to_string(&name)? == "cat\n")).unwrap();
            (child, fs::read_link("/proc/thread-self").unwrap())
        });
        let (mut child, thread_entry) = asking.join().unwrap();
        // A joined thread is not quite gone; the kernel sends the signal before it removes the entry.
        let entry = Path::new("/proc").join(thread_entry);
        wait_until("the thread to be gone", || Ok(!entry.exists())).unwrap();

        // It answers only if it is alive; that it has not been reaped yet would prove nothing.
        child.stdin.take().unwrap().write_all(b"alive").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"alive");
    }
}
