//! One `PostgreSQL` of the system's binaries for all tests of the process, in a directory of its own on a free port.
//! It ends with the test process, however that ends.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

/// A running server.
pub(crate) struct Server {
    port: u16,
}

static SHARED: LazyLock<Server> = LazyLock::new(Server::start);

impl Server {
    pub(crate) fn shared() -> &'static Self {
        &SHARED
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres:postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub(crate) async fn create_database(&self, name: &str) -> String {
        let mut sql = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::raw_sql(&format!("CREATE DATABASE {name}")).execute(&mut sql).await.unwrap();
        self.url(name)
    }

    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("sink-target-").tempdir().unwrap().keep();
        let data = directory.join("data");
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(&directory));
        }
        run(as_user(&binary("initdb")).args(["-U", "postgres", "--auth=trust", "--no-sync", "-D"]).arg(&data));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        // The guard shell outlives neither the server nor this process: it watches its own standard input, which this
        // process holds open, and removes the directory when it is closed.
        let script = r#"directory=$1; shift; "$@" >"$directory/log" 2>&1 & server=$!; cat >/dev/null; kill -QUIT $server; wait $server; rm -rf "$directory""#;
        let mut guard = as_user(Path::new("sh"));
        guard.args(["-c", script, "guard"]).arg(&directory).arg(binary("postgres")).arg("-D").arg(&data);
        guard.args(["-c", &format!("port={port}"), "-c", "listen_addresses=127.0.0.1"]);
        guard.args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "deadlock_timeout=100ms"]);
        let mut guard = guard.stdin(Stdio::piped()).current_dir("/").spawn().expect("PostgreSQL cannot be started");
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() || !accepts(port, &data) {
            assert!(Instant::now() < deadline, "PostgreSQL does not come up, see {}/log", directory.display());
            assert!(guard.try_wait().unwrap().is_none(), "PostgreSQL ended, see {}/log", directory.display());
            thread::sleep(Duration::from_millis(50));
        }
        // Kept open, and with it the server, until the process ends.
        std::mem::forget(guard);
        Self { port }
    }
}

fn accepts(port: u16, data: &Path) -> bool {
    let ready = data.join("postmaster.pid");
    std::fs::read_to_string(ready).is_ok_and(|text| text.contains(&port.to_string()) && text.contains("ready"))
}

fn binary(name: &str) -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is not installed: apt-get install postgresql");
    let mut found: Vec<PathBuf> =
        versions.flatten().map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort();
    found.pop().expect("PostgreSQL is not installed: apt-get install postgresql")
}

/// `PostgreSQL` refuses to run as root.
fn as_user(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn run(command: &mut Command) {
    let output = command.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
