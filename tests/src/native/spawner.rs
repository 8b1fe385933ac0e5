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

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sleep", "30"]);
        let mut child = thread::spawn(move || spawn(command)).join().unwrap().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
