//! The program: settings → logging → health and signals → one loop per topic → exit code by meaning.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use prometheus_client::registry::Registry;
use service::{Coded, Exit, Health, Operations, Parsed, Shutdown, configuration, healthcheck, logging, watchdog};
use service_kafka::Reached;
use sink::database::Database;
use sink::deltas::Deltas;
use sink::kafka::{Announcements, Source};
use sink::metrics::Metrics;
use sink::postgres;
use sink::run::{Loop, Parts};
use sink::settings::{Arguments, Settings};
use sink::transaction_log::TransactionLog;
use sink::work::Work;

/// Writes the newest stock delta of every good into the target database
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run until told to stop (SIGTERM or SIGINT)
    Run(Box<Arguments>),
    /// Ask a running sink whether it is ready; exit code 0 when it is
    Healthcheck(healthcheck::Arguments),
}

/// Everything a loop does is bounded well below this; removing an old epoch beats in between.
const SILENCE: Duration = Duration::from_secs(280);

/// How long brokers may be away at the start before it is told.
const REACH_PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let Parsed { arguments, kafka, unknown_variables } = configuration::parse::<Program>("SINK");
    let arguments = match arguments.verb {
        Verb::Healthcheck(arguments) => return healthcheck::run(&arguments.http).into(),
        Verb::Run(arguments) => arguments,
    };
    let result = logging::start(&arguments.common.logging).and_then(|()| {
        for variable in unknown_variables {
            tracing::warn!(variable, "this environment variable is no setting of the sink and has no effect");
        }
        run(&Settings::new(&arguments, kafka)?, &arguments.common.http)
    });
    match result {
        Ok(()) => Exit::Clean.into(),
        Err(error) => error.report(),
    }
}

/// What all loops share.
struct Shared<'a> {
    settings: &'a Settings,
    health: Health,
    metrics: Metrics,
    operations: Operations,
    on_started: Arc<dyn Fn() + Send + Sync>,
}

fn run(settings: &Settings, http: &str) -> Result<(), Coded> {
    let (health, metrics, mut registry) = (Health::new(), Metrics::default(), Registry::default());
    metrics.register(&mut registry);
    let operations = Operations::start(http, health.clone(), Arc::new(registry))?;
    watchdog::start(health.clone())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), database = %settings.database_url, topic = settings.topics.deltas,
        group_id = settings.group_id, http = %operations.address, "sink starting"
    );
    if !reach_brokers(settings, &operations.shutdown)? {
        return Ok(());
    }
    let on_started = when_all_have_started(health.clone(), if settings.transaction_log { 2 } else { 1 });
    let shared = Shared { settings, health, metrics, operations, on_started };
    let control =
        Announcements::open(&settings.consumer(&format!("{}-control", settings.group_id)), &settings.topics.control)?;
    let deltas = shared.build::<Deltas>(&settings.topics.deltas, &settings.group_id, Some(control))?;
    let log = if settings.transaction_log {
        let group_id = format!("{}-transaction-log", settings.group_id);
        Some(shared.build::<TransactionLog>(&settings.topics.transactions, &group_id, None)?)
    } else {
        None
    };
    thread::scope(|scope| {
        let deltas = scope.spawn(|| shared.supervise(deltas));
        let log = log.map(|log| scope.spawn(|| shared.supervise(log)));
        let panicked = |_| Err(Coded::unexpected("SINK_PANIC", "a worker thread panicked; the log says where"));
        let deltas = deltas.join().unwrap_or_else(panicked);
        let log = log.map_or(Ok(()), |log| log.join().unwrap_or_else(panicked));
        tracing::info!("sink stopped");
        deltas.and(log)
    })
}

/// Waits until a broker has let the sink in, for as long as it takes; a refusal is an error. `false`: told to stop
/// meanwhile.
fn reach_brokers(settings: &Settings, shutdown: &Shutdown) -> Result<bool, Coded> {
    let mut topics = vec![settings.topics.deltas.as_str(), &settings.topics.control];
    topics.extend(settings.transaction_log.then_some(settings.topics.transactions.as_str()));
    while !shutdown.requested() {
        match service_kafka::reach(&settings.consumer(&settings.group_id), &topics, REACH_PATIENCE)? {
            Reached::Yes => return Ok(true),
            Reached::NotYet(reason) => tracing::warn!(reason, "no broker answers yet; trying again"),
        }
    }
    Ok(false)
}

/// The start is over when every loop has a connection and its share of the group.
fn when_all_have_started(health: Health, loops: usize) -> Arc<dyn Fn() + Send + Sync> {
    let missing = AtomicUsize::new(loops);
    Arc::new(move || {
        if missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            health.set_started();
        }
    })
}

impl Shared<'_> {
    fn build<W: Work>(
        &self,
        topic: &str,
        group_id: &str,
        announcements: Option<Announcements>,
    ) -> Result<Loop<W>, Coded> {
        let settings = self.settings;
        let condition = self.health.condition(format!("database for {topic}"), "not connected yet");
        let shutdown = self.operations.shutdown.clone();
        let options = postgres::options(&settings.database_url, settings.database_password.as_ref())?;
        Ok(Loop::new(Parts {
            source: Source::subscribe(&settings.consumer(group_id), topic)?,
            topic: topic.to_owned(),
            database: Database::new(options, settings.database_timeout, settings.types, shutdown.clone(), condition)?,
            types: settings.types,
            announcements,
            batch_records: settings.batch_records,
            progress_check: settings.progress_check,
            shutdown,
            metrics: self.metrics.clone(),
            heartbeat: self.health.heartbeat(topic, SILENCE),
            membership: self.health.condition(format!("group for {topic}"), "not a member yet"),
            on_started: Arc::clone(&self.on_started),
        }))
    }

    /// Runs a loop to its end; when one ends, for whatever reason, all end.
    fn supervise<W: Work>(&self, worker: Loop<W>) -> Result<(), Coded> {
        let result = worker.run();
        self.health.set_stopping();
        self.operations.shutdown.request();
        if let Err(error) = &result {
            error.report();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn brokers_that_die_do_not_crash_a_program_linked_as_this_one_is() {
        assert!(service_kafka::leader_discovery::is_mended());
    }

    #[test]
    fn the_documented_command_lines_are_understood() {
        let run = "sink run --bootstrap-servers localhost:29092 --topic-prefix warehouse.stock --group-id stock-sink \
                   --database-url postgres://postgres:postgres@localhost/remains --http 0.0.0.0:8080 --transaction-log";
        let parsed = configuration::parse_from::<Program>("SINK", words(&run.replace('\\', "")), []).unwrap();
        let Verb::Run(arguments) = parsed.arguments.verb else { panic!("not run") };
        assert!(arguments.transaction_log && Settings::new(&arguments, parsed.kafka).is_ok());
        let check = configuration::parse_from::<Program>("SINK", words("sink healthcheck --http 127.0.0.1:1"), []);
        assert!(
            matches!(check.unwrap().arguments.verb, Verb::Healthcheck(arguments) if arguments.http == "127.0.0.1:1")
        );
    }
}
