//! `processor run`: from settings to running workers, and back to an exit code.
//!
//! Owns the threads and the order of things at start and at the end. Each worker is one OS thread that owns
//! its clients and its partitions' state; they share nothing but the store's directory and the metrics. The
//! first worker that must stop takes the process with it: crash-only, because a restart replays only a gap.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use processor_application::{RecordFormat, Settings as ApplicationSettings, StockApplication, Wiring};
use processor_core::SweepPolicy;
use processor_engine::{Failure, Limits, Step, Stop, Topology, Worker};
use processor_store::LocalStore;
use prometheus_client::registry::Registry;
use schemas::IdType;
use schemas::debezium::{Columns, Decoder};
use service::configuration::KafkaTables;
use service::{Coded, Exit, Health, Operations, Shutdown};
use service_kafka::Reached;

use crate::caught_up::{CaughtUp, Rounds};
use crate::kafka::admin::{self, Provided, Provision};
use crate::kafka::{ClientProperties, KafkaCluster};
use crate::metrics::{Metrics, PartitionLabel};
use crate::registry::output::register;
use crate::registry::{CachedSchemas, RegistryCluster, SchemaCache};
use crate::settings::{OutputFormat, Run};
use crate::telemetry::{ApplicationTelemetry, WorkerTelemetry};

/// How long one attempt to check the topics waits for brokers and leaders; then it is told and tried again.
const ADMIN_PATIENCE: Duration = Duration::from_secs(20);

/// How long brokers may be away at the start before it is told.
const REACH_PATIENCE: Duration = Duration::from_secs(10);

/// How long workers may take to end after being told to.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// How long a worker waits for another one of the process to let go of a partition before it looks around.
const HANDOVER: Duration = Duration::from_millis(50);

/// How often a worker tells its positions to the metrics.
const POSITIONS_EVERY: Duration = Duration::from_secs(1);

type StockWorker =
    Worker<RegistryCluster<KafkaCluster>, LocalStore, StockApplication<ApplicationTelemetry>, WorkerTelemetry>;

/// What every worker is built from.
#[derive(Clone)]
struct Plan {
    settings: Arc<Run>,
    properties: ClientProperties,
    topology: Arc<Topology>,
    application: ApplicationSettings,
    max_state_age: Duration,
    store: LocalStore,
    metrics: Metrics,
    schemas: Option<SchemaCache>,
    health: Health,
    shutdown: Shutdown,
    rounds: Arc<Rounds>,
}

/// Runs until told to stop.
///
/// # Errors
/// What made the process stop, with its code, remedy and exit code.
pub fn run(settings: Run, kafka: &KafkaTables) -> Result<(), Coded> {
    let properties = crate::kafka::config::operator_properties(kafka, &settings.kafka.access)?;
    let health = Health::new();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let operations = Operations::start(&settings.common.http, health.clone(), Arc::new(registry))?;
    tracing::info!(http = %operations.address, application = settings.application_id, instance = settings.instance, "starting");

    let columns = settings.source_table.columns()?;
    let schemas = SchemaCache::start(&settings.schema_registry, &columns, metrics.schemas_awaited.clone())?;
    let names = topic_names(&settings)?;
    let Some(provided) = provide_topics(&settings, &properties, &operations.shutdown)? else { return Ok(()) };
    let form = |wanted, topic: &str, schema: &str| form(&settings, wanted, topic, schema, &operations.shutdown);
    let (goods, scale) = (columns.good_type(), columns.pieces_scale());
    let schema = schemas::delta::avro_schema(goods, scale);
    let Some(output) = form(settings.output_format, &names.deltas, &schema)? else { return Ok(()) };
    let schema = schemas::changelog::avro_schema(goods, scale);
    let Some(changelog) = form(settings.changelog_format, &names.transactions, &schema)? else {
        return Ok(());
    };
    let topology = Arc::new(Wiring::topology(&settings.source_topic, &names, settings.accept_truncated_input));
    let mut options = processor_store::Options::new(
        &settings.state_dir,
        &settings.application_id,
        &provided.cluster_id,
        topology.stages.iter().map(|stage| stage.name),
    );
    // The engine tries again; waiting inside would keep the worker from polling.
    options.handover = HANDOVER;
    if columns.id_type() == IdType::Key {
        options.id_bytes = None;
    }
    // While a worker writes its state, the brokers have nothing to do for it: it may use their core.
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    options.apply_threads = (cores / usize::from(settings.workers)).clamp(1, 4);
    let plan = Plan {
        application: application_settings(&settings, &provided, columns, (output, changelog))?,
        // Well before the changelogs may have forgotten a tombstone.
        max_state_age: Limits::default().max_state_age.min(Duration::from_millis(provided.delete_retention_ms / 4 * 3)),
        store: LocalStore::open(options).map_err(coded)?,
        rounds: Arc::new(Rounds::new(settings.workers)),
        settings: Arc::new(settings),
        properties,
        topology,
        metrics,
        schemas,
        health: health.clone(),
        shutdown: operations.shutdown,
    };
    service::watchdog::start(health.clone())?;
    let outcome = join(start_workers(&plan)?, &plan.shutdown);
    health.set_stopping();
    // Last, when no worker holds a partition any more: synced and marked as closed, the state survives a reboot.
    if let Err(failure) = plan.store.close() {
        tracing::warn!(%failure, "the state was not closed cleanly: after a reboot it is restored from the changelog");
    }
    outcome
}

/// The form that a topic's records are to have, its schema registered where it has one; `None`: told to stop meanwhile.
fn form(
    settings: &Run,
    wanted: OutputFormat,
    topic: &str,
    schema: &str,
    shutdown: &Shutdown,
) -> Result<Option<RecordFormat>, Coded> {
    Ok(match wanted {
        OutputFormat::Json => Some(RecordFormat::Json),
        OutputFormat::Avro => register(&settings.schema_registry, topic, schema, shutdown)?
            .map(|schema_id| RecordFormat::Avro { schema_id }),
    })
}

fn topic_names(settings: &Run) -> Result<schemas::Topics, Coded> {
    schemas::Topics::new(&settings.kafka.topic_prefix)
        .map_err(|error| Coded::usage("TOPIC_PREFIX_INVALID", error.to_string(), "give another --topic-prefix"))
}

/// Creates what is missing and checks what is there; waits for brokers as long as it takes. `None`: told to
/// stop meanwhile.
fn provide_topics(
    settings: &Run,
    properties: &ClientProperties,
    shutdown: &Shutdown,
) -> Result<Option<Provided>, Coded> {
    let provision = Provision {
        bootstrap_servers: settings.kafka.bootstrap_servers.clone(),
        properties: properties.admin.clone(),
        source: settings.source_topic.clone(),
        prefix: settings.kafka.topic_prefix.clone(),
        movements_partitions: settings.output_partitions,
        replication_factor: settings.replication_factor,
        patience: ADMIN_PATIENCE,
    };
    if !reach_brokers(&provision, shutdown)? {
        return Ok(None);
    }
    while !shutdown.requested() {
        match admin::provide(&provision) {
            Ok(provided) => return Ok(Some(provided)),
            Err(Failure::Stop(stop)) => return Err(coded(Failure::Stop(stop))),
            Err(failure) => tracing::warn!(%failure, "the topics cannot be checked yet; trying again"),
        }
    }
    Ok(None)
}

/// Waits until a broker has let this program in, for as long as it takes; a refusal is an error. `false`: told to stop
/// meanwhile.
fn reach_brokers(provision: &Provision, shutdown: &Shutdown) -> Result<bool, Coded> {
    let config = crate::kafka::config::admin(&provision.bootstrap_servers, "first", &provision.properties);
    while !shutdown.requested() {
        match service_kafka::reach(&config, &[], REACH_PATIENCE)? {
            Reached::Yes => return Ok(true),
            Reached::NotYet(reason) => tracing::warn!(reason, "no broker answers yet; trying again"),
        }
    }
    Ok(false)
}

fn application_settings(
    settings: &Run,
    provided: &Provided,
    columns: Columns,
    (output, changelog): (RecordFormat, RecordFormat),
) -> Result<ApplicationSettings, Coded> {
    let partitions = |count: u16, topic: &str| {
        NonZeroU32::new(u32::from(count)).ok_or_else(|| {
            Coded::unexpected("TOPIC_WITHOUT_PARTITIONS", format!("the {topic} topic has no partitions"))
        })
    };
    let source = partitions(provided.source_partitions, "source")?;
    let movements = partitions(provided.movements_partitions, "movements")?;
    Ok(ApplicationSettings {
        output,
        changelog,
        decoder: Decoder { columns, max_value_bytes: settings.max_value_bytes },
        sweep_policy: SweepPolicy {
            enabled: settings.sweep,
            hold_above_percent: settings.sweep_hold_above_percent,
            hold_above_rows: settings.sweep_hold_above_rows,
        },
        // The dead-letter topic has as many partitions as the source.
        ..ApplicationSettings::new(&settings.source_topic, source, movements, source)
    })
}

fn start_workers(plan: &Plan) -> Result<Vec<JoinHandle<Result<(), Coded>>>, Coded> {
    (0..plan.settings.workers)
        .map(|number| {
            let plan = plan.clone();
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let shutdown = plan.shutdown.clone();
                let result = work(&plan, number);
                // One worker less would leave its partitions to the others in silence: end together.
                shutdown.request();
                result
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|error| Coded::unexpected("WORKER_START", format!("a worker thread cannot be started: {error}")))
}

/// Waits for all workers; the first error is the process's.
fn join(workers: Vec<JoinHandle<Result<(), Coded>>>, shutdown: &Shutdown) -> Result<(), Coded> {
    end_in_time(shutdown)?;
    let mut outcome = Ok(());
    for worker in workers {
        let result = worker.join().unwrap_or_else(|_| {
            Err(Coded::unexpected("WORKER_PANIC", "a worker thread panicked; its message is in the log above"))
        });
        shutdown.request();
        if let (Err(error), true) = (&result, outcome.is_ok()) {
            outcome = Err(error.clone());
        }
    }
    outcome
}

/// Ends the process when draining takes too long, as it does while no broker answers. Always safe: what is not
/// committed is done again.
fn end_in_time(shutdown: &Shutdown) -> Result<(), Coded> {
    let shutdown = shutdown.clone();
    let wait = move || {
        while !shutdown.requested() {
            thread::sleep(Duration::from_millis(200));
        }
        thread::sleep(DRAIN_WITHIN);
        let error = Coded::new(
            Exit::Watchdog,
            "DRAIN_TIMEOUT",
            format!("the workers did not end within {} s of being told to", DRAIN_WITHIN.as_secs()),
            "nothing: what was not committed is done again at the next start; look at the brokers if it repeats",
        );
        error.report();
        Exit::Watchdog.now();
    };
    let thread = thread::Builder::new().name("drain-deadline".to_owned());
    thread.spawn(wait).map(drop).map_err(|error| Coded::unexpected("WORKER_START", error.to_string()))
}

/// One worker's life.
fn work(plan: &Plan, number: u16) -> Result<(), Coded> {
    let Some(mut worker) = join_group(plan, number)? else { return Ok(()) };
    let mut told = Instant::now();
    let mut leaving = false;
    let mut caught_up = plan.settings.until_caught_up.then(|| CaughtUp::new(&plan.rounds, number));
    loop {
        if plan.shutdown.requested() && !leaving {
            leaving = true;
            worker.leave().map_err(|stop| coded(Failure::Stop(stop)))?;
        }
        let step = worker.step().map_err(|stop| coded(Failure::Stop(stop)))?;
        match step {
            Step::Worked | Step::Idle => {}
            Step::Backoff(wait) => thread::sleep(wait),
            Step::Left => return Ok(()),
        }
        if let (Some(caught_up), false) = (&mut caught_up, leaving) {
            match caught_up.look(step == Step::Idle, || worker.is_drained()) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!("everything in the source topic is processed: ending, as --until-caught-up asks");
                    plan.shutdown.request();
                }
                Err(failure @ Failure::Stop(_)) => return Err(coded(failure)),
                // Brokers that cannot be asked now are asked again.
                Err(failure) => tracing::debug!(%failure, "not known whether everything is processed"),
            }
        }
        if told.elapsed() >= POSITIONS_EVERY {
            told = Instant::now();
            tell_positions(plan, &worker);
        }
    }
}

/// Builds the worker, waiting for brokers as long as it takes. `None`: told to stop meanwhile.
fn join_group(plan: &Plan, number: u16) -> Result<Option<StockWorker>, Coded> {
    let limit = Duration::from_secs(plan.settings.watchdog_seconds);
    let mut wait = Duration::from_millis(100);
    while !plan.shutdown.requested() {
        let heartbeat = plan.health.heartbeat(format!("worker-{number}"), limit);
        let telemetry = WorkerTelemetry::new(
            Arc::clone(&plan.topology),
            plan.metrics.clone(),
            plan.health.clone(),
            heartbeat,
            number,
        );
        let mut application =
            StockApplication::new(plan.application.clone(), ApplicationTelemetry::new(plan.metrics.clone()));
        if let Some(schemas) = &plan.schemas {
            application = application.with_registry(Box::new(CachedSchemas::new(schemas.clone())));
        }
        let kafka = KafkaCluster::new(crate::kafka::Settings {
            bootstrap_servers: plan.settings.kafka.bootstrap_servers.clone(),
            application_id: plan.settings.application_id.clone(),
            instance: plan.settings.instance.clone(),
            worker: usize::from(number),
            topology: Arc::clone(&plan.topology),
            transaction_timeout: crate::kafka::config::DEFAULT_TRANSACTION_TIMEOUT,
            static_membership: plan.settings.static_membership,
            properties: plan.properties.clone(),
            shutdown: plan.shutdown.clone(),
        });
        let cluster = RegistryCluster::new(kafka, Wiring::DEFAULT.source, plan.schemas.clone());
        let limits = Limits {
            max_records: plan.settings.batch_records,
            commit_interval: plan.settings.commit_interval(),
            max_state_age: plan.max_state_age,
            ..Limits::default()
        };
        let topology = (*plan.topology).clone();
        match Worker::new(topology, limits, cluster, plan.store.clone(), application, telemetry) {
            Ok(worker) => return Ok(Some(worker)),
            Err(Failure::Stop(stop)) => return Err(coded(Failure::Stop(stop))),
            Err(failure) => tracing::warn!(worker = number, %failure, "cannot start yet; trying again"),
        }
        thread::sleep(wait);
        wait = (wait * 2).min(Duration::from_secs(5));
    }
    Ok(None)
}

fn tell_positions(plan: &Plan, worker: &StockWorker) {
    for (partition, position) in worker.positions() {
        let label = PartitionLabel { stage: plan.topology.stage_name(partition.stage), partition: partition.partition };
        plan.metrics.next_offset.get_or_create(&label).set(position);
    }
}

/// The engine's reasons to stop, as the operator sees them.
fn coded(failure: Failure) -> Coded {
    match failure {
        Failure::Stop(Stop { code, what, remedy }) => {
            let exit = match code {
                "FENCED" => Exit::Fenced,
                // A restart helps: these mean that the client, not the data, cannot go on.
                "INPUT_OFFSET_OUT_OF_RANGE" | "CHANGELOG_OFFSET_OUT_OF_RANGE" | "KAFKA_MEMBER_LOST" => Exit::Unexpected,
                _ => Exit::Refused,
            };
            Coded::new(exit, code, what, remedy)
        }
        failure => Coded::unexpected("UNEXPECTED", failure.to_string()),
    }
}
