//! Owns the connection to the target over time: lost, waited for with growing pauses, made again, and lent to the one
//! operation that may run beside the loop.
//!
//! It never lets the loop wait longer than one step may take, so that the loop polls Kafka in between and the group
//! keeps this sink as a member while the database is away.

use std::future::Future;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use service::health::Condition;
use service::{Coded, Shutdown};
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::postgres::{self, Failure, Target};
use crate::work::Types;

/// How long a step in progress may still take once the end was asked for.
const GRACE: Duration = Duration::from_secs(4);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The target, there or not.
pub struct Database {
    runtime: Runtime,
    options: PgConnectOptions,
    step: Duration,
    types: Types,
    shutdown: Shutdown,
    condition: Condition,
    state: State,
    /// Whether there ever was a connection: after that every failure is an outage, which passes.
    was_up: bool,
}

enum State {
    Up(Box<Target>),
    /// With the operation that runs beside the loop.
    Lent,
    Down {
        pauses: ExponentialBackoff,
        again: Instant,
    },
}

impl State {
    /// Without a connection, to be made at once.
    fn down() -> Self {
        Self::Down { pauses: pauses(), again: Instant::now() }
    }
}

/// An operation that was begun with [`Database::start`]. When it is cut short, so is the connection.
pub struct Running<T>(JoinHandle<Result<Finished<T>, Failure>>);

/// The connection, back from an operation, and what came of it.
pub type Finished<T> = (Box<Target>, Result<T, Failure>);

impl Database {
    /// Not connected yet; `step` bounds every operation, and what is there is of these types.
    ///
    /// # Errors
    /// `DATABASE_RUNTIME` when no runtime can be had.
    pub fn new(
        options: PgConnectOptions,
        step: Duration,
        types: Types,
        shutdown: Shutdown,
        condition: Condition,
    ) -> Result<Self, Coded> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|error| {
                Coded::unexpected("DATABASE_RUNTIME", format!("no runtime for the database: {error}"))
            })?;
        Ok(Self { runtime, options, step, types, shutdown, condition, state: State::down(), was_up: false })
    }

    /// Whether there is a connection, as far as is known.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_) | State::Lent)
    }

    /// Connects when it is time to; `Ok(true)` when a new connection was made, `Err` what it failed on.
    pub fn keep(&mut self) -> Result<bool, Failure> {
        let State::Down { again, .. } = &self.state else { return Ok(false) };
        if Instant::now() < *again {
            return Ok(false);
        }
        let (options, step, types) = (self.options.clone(), self.step, self.types);
        let limit = CONNECT.min(step);
        match self.bounded(limit, async { Target::connect(&options, step, types).await }) {
            Ok(target) => {
                self.state = State::Up(Box::new(target));
                self.condition.up();
                self.was_up = true;
                Ok(true)
            }
            Err(Failure::Database(error)) if !self.was_up => {
                Err(postgres::refusal(&error).map_or(Failure::Database(error), Failure::Refused))
            }
            Err(failure) => Err(failure),
        }
    }

    /// The connection is lost: wait before the next attempt, longer each time in a row.
    pub fn lose(&mut self, reason: &str) -> Duration {
        self.condition.down(reason);
        let mut pauses = match std::mem::replace(&mut self.state, State::down()) {
            // A connection that worked and broke is tried again from the shortest pause.
            State::Up(_) | State::Lent => self::pauses(),
            State::Down { pauses, .. } => pauses,
        };
        // The builder sets no limit of attempts, so there always is a next pause.
        let pause = pauses.next().unwrap_or(CONNECT);
        self.state = State::Down { pauses, again: Instant::now() + pause };
        pause
    }

    /// Runs one step on the connection, within its time; `None` when there is no connection, or it is lent.
    pub fn step<T>(
        &mut self,
        operation: impl AsyncFnOnce(&mut Target) -> Result<T, Failure>,
    ) -> Option<Result<T, Failure>> {
        let mut target = self.take()?;
        let result = self.bounded(self.step, async { operation(&mut target).await });
        // Also after a failure: the caller decides whether the connection is lost.
        self.state = State::Up(target);
        Some(result)
    }

    /// Begins an operation that runs beside the caller, within the time of a step, until [`finish`](Self::finish)
    /// takes the connection back; `None` as with [`step`](Self::step).
    pub fn start<T: Send + 'static, F>(&mut self, operation: impl FnOnce(Box<Target>) -> F) -> Option<Running<T>>
    where
        F: Future<Output = Finished<T>> + Send + 'static,
    {
        let operation = operation(self.take()?);
        let (limit, shutdown) = (self.step, self.shutdown.clone());
        let task = async move { within(limit, &shutdown, async { Ok(operation.await) }).await };
        Some(Running(self.runtime.spawn(task)))
    }

    /// Waits for an operation to end.
    ///
    /// # Errors
    /// What it ended with.
    pub fn finish<T>(&mut self, running: Running<T>) -> Result<T, Failure> {
        let finished = match self.runtime.block_on(running.0) {
            Ok(finished) => finished,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(late("the operation was cancelled")),
            },
        };
        match finished {
            Ok((target, result)) => {
                self.state = State::Up(target);
                result
            }
            Err(cut_short) => {
                self.state = State::down();
                Err(cut_short)
            }
        }
    }

    /// Lends the connection, when it is here.
    fn take(&mut self) -> Option<Box<Target>> {
        match std::mem::replace(&mut self.state, State::Lent) {
            State::Up(target) => Some(target),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn bounded<T>(&self, limit: Duration, operation: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.runtime.block_on(within(limit, &self.shutdown, operation))
    }
}

/// Gives an operation up when it takes too long, or the end was asked for and it still goes on.
async fn within<T>(
    limit: Duration,
    shutdown: &Shutdown,
    operation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let cut_short = async {
        shutdown.wait().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = operation => result,
        () = tokio::time::sleep(limit) => Err(late("the database did not answer in time")),
        () = cut_short => Err(late("the database did not answer while shutting down")),
    }
}

fn late(what: &str) -> Failure {
    Failure::Database(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what)))
}

/// 100 ms, doubling up to 5 s, each with jitter so that many sinks do not come back at once.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
        .build()
}
