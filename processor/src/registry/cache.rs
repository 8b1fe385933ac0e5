//! The schemas at hand, and the thread that asks the registry for others.
//!
//! Shared by all workers of the process. Whoever needs a schema is answered at once, be it with "not yet"; the thread asks
//! for as long as it takes. An answer that waiting does not change stops the process, coded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use processor_application::{SchemaMissing, Schemas};
use processor_engine::Stop;
use prometheus_client::metrics::gauge::Gauge;
use schemas::debezium::{Columns, WriterSchema};
use service::Coded;
use service::configuration::SchemaRegistry;

use super::client::{NoSchema, RegistryClient};

/// Pauses between attempts while the registry does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a registry may say that it has no such schema: one that was just restored, or a replica of it, may not have
/// it yet.
const NOT_FOUND_FOR: Duration = Duration::from_secs(60);
/// How often an outage is told again.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// What is known of a schema.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// At hand.
    Here(Arc<WriterSchema>),
    /// Asked for.
    Awaited,
    /// There will be none.
    Never(Stop),
}

/// The schemas at hand; cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct SchemaCache {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// How many schemas are waited for.
    awaited: Gauge,
}

#[derive(Debug, Default)]
struct State {
    here: HashMap<u32, Arc<WriterSchema>>,
    never: HashMap<u32, Stop>,
    /// Asked for, and since when the registry says that it has none such.
    awaited: BTreeMap<u32, Option<Instant>>,
}

impl SchemaCache {
    /// Starts the thread; `None` without a registry. The registry is asked whether it lets us in, once and here: a wrong
    /// password is to be seen at the start, and not when the first schema is needed. If it does not answer, that is all the
    /// same: it is asked again when a schema is needed. `awaited` shows how many are.
    ///
    /// # Errors
    /// A wrong setting; `SCHEMA_REGISTRY_REFUSED` or `SCHEMA_REGISTRY_TLS`, if the registry is there and does not let us in.
    pub fn start(settings: &SchemaRegistry, columns: &Columns, awaited: Gauge) -> Result<Option<Self>, Coded> {
        let Some(access) = settings.access()? else { return Ok(None) };
        let client = RegistryClient::new(&access)?;
        reach(&client, &access.urls.join(","))?;
        let cache = Self { shared: Arc::new(Shared { awaited, ..Shared::default() }) };
        let (settings, columns) = (settings.clone(), columns.clone());
        let asking = Asking { cache: cache.clone(), settings, columns, client, urls: access.urls, told: None };
        thread::Builder::new()
            .name("schema-registry".to_owned())
            .spawn(move || asking.run())
            .map_err(|error| Coded::unexpected("SCHEMA_REGISTRY_CLIENT", format!("no thread for it: {error}")))?;
        Ok(Some(cache))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a schema; asks for it from now on if nothing is.
    pub(super) fn get(&self, id: u32) -> Known {
        let mut state = self.lock();
        if let Some(schema) = state.here.get(&id) {
            return Known::Here(Arc::clone(schema));
        }
        if let Some(stop) = state.never.get(&id) {
            return Known::Never(stop.clone());
        }
        // Asked again and again while a partition is held: since when it is missing stays.
        if let Entry::Vacant(new) = state.awaited.entry(id) {
            new.insert(None);
            self.tell_awaited(&state);
            self.shared.changed.notify_all();
        }
        Known::Awaited
    }

    fn tell_awaited(&self, state: &State) {
        self.shared.awaited.set(i64::try_from(state.awaited.len()).unwrap_or(i64::MAX));
    }

    /// An answer to a question.
    pub(super) fn answered(&self, id: u32, answer: Result<WriterSchema, NoSchema>) {
        let mut state = self.lock();
        let never = match answer {
            Ok(schema) => {
                state.here.insert(id, Arc::new(schema));
                None
            }
            Err(NoSchema::Unusable(why)) => Some(unusable(id, &why)),
            Err(NoSchema::NotFound(said)) => {
                let since = *state.awaited.entry(id).or_default().get_or_insert_with(Instant::now);
                if since.elapsed() < NOT_FOUND_FOR {
                    return;
                }
                Some(not_found(id, &said))
            }
            Err(NoSchema::Unavailable(_) | NoSchema::Refused(_) | NoSchema::Untrusted(_)) => {
                state.awaited.insert(id, None);
                return;
            }
        };
        state.never.extend(never.map(|stop| (id, stop)));
        state.awaited.remove(&id);
        self.tell_awaited(&state);
    }

    /// Waits until schemas are asked for.
    fn wait(&self) -> Vec<u32> {
        let state = self.lock();
        let waited = self.shared.changed.wait_while(state, |state| state.awaited.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).awaited.keys().copied().collect()
    }

    /// Waits for another question, at most so long.
    fn pause(&self, pause: Duration) {
        let state = self.lock();
        drop(self.shared.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Asks the registry for anything at all, once.
fn reach(client: &RegistryClient, registry: &str) -> Result<(), Coded> {
    match client.reach() {
        Ok(()) => Ok(()),
        Err(NoSchema::Refused(said)) => Err(refused(registry, &said)),
        Err(NoSchema::Untrusted(said)) => Err(untrusted(registry, &said)),
        Err(other) => {
            let code = "SCHEMA_REGISTRY_UNAVAILABLE";
            tracing::warn!(
                code,
                registry,
                said = other.said(),
                "the schema registry does not answer now: going on without it"
            );
            Ok(())
        }
    }
}

/// The registry does not let us in.
pub(super) fn refused(registry: &str, said: &str) -> Coded {
    Coded::refused(
        "SCHEMA_REGISTRY_REFUSED",
        format!("the registry {registry} does not let this program in: {said}"),
        "check --schema-registry-user and its password file, or the token file, or --schema-registry-certificate-file where \
         the registry wants one, and that it knows the user; then start again",
    )
}

/// The registry, or we, cannot be believed.
pub(super) fn untrusted(registry: &str, said: &str) -> Coded {
    Coded::refused(
        "SCHEMA_REGISTRY_TLS",
        format!("no TLS connection to the registry {registry}: {said}"),
        "check that --schema-registry-ca-file holds the authority that issued the registry's certificate, that this is \
         valid now and for the host name in --schema-registry-url, and that --schema-registry-certificate-file is given \
         where the registry wants one; then start again",
    )
}

fn not_found(id: u32, said: &str) -> Stop {
    Stop {
        code: "SCHEMA_NOT_FOUND",
        what: format!("the registry has no schema {id}, by which records of the source topic are written ({said})"),
        remedy: "point --schema-registry-url to the registry that the connector's converter writes its schemas to, or \
                 restore that registry's schemas under their ids"
            .into(),
    }
}

fn unusable(id: u32, why: &str) -> Stop {
    Stop {
        code: "SCHEMA_UNUSABLE",
        what: format!("schema {id}, by which records of the source topic are written, cannot be used: {why}"),
        remedy: "let the connector write with Connect's JSON converter or a registry's Avro or JSON Schema converter"
            .into(),
    }
}

/// The thread's own.
struct Asking {
    cache: SchemaCache,
    settings: SchemaRegistry,
    columns: Columns,
    client: RegistryClient,
    urls: Vec<String>,
    /// When an outage was told last; `None` while there is none.
    told: Option<Instant>,
}

impl Asking {
    fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut complete = true;
            for id in self.cache.wait() {
                let answer = self.client.schema(&self.columns, id);
                complete &= self.note(id, &answer);
                self.cache.answered(id, answer);
            }
            if complete {
                pause = FIRST_PAUSE;
            } else {
                self.cache.pause(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Tells what an operator wants to know; whether the answer is a last one.
    fn note(&mut self, id: u32, answer: &Result<WriterSchema, NoSchema>) -> bool {
        let (said, code) = match answer {
            Ok(_) => {
                if self.told.take().is_some() {
                    tracing::info!(schema = id, "the schema registry answers again");
                }
                tracing::info!(schema = id, "schema fetched");
                return true;
            }
            Err(NoSchema::Unusable(_)) => return true,
            Err(NoSchema::Unavailable(said)) => (said, "SCHEMA_REGISTRY_UNAVAILABLE"),
            Err(NoSchema::NotFound(said)) => (said, "SCHEMA_NOT_FOUND"),
            Err(refusal @ (NoSchema::Refused(said) | NoSchema::Untrusted(said))) => {
                // Secrets and certificates are renewed: the files are read again.
                if let Ok(Some(access)) = self.settings.access()
                    && let Ok(client) = RegistryClient::new(&access)
                {
                    self.client = client;
                }
                let untrusted = matches!(refusal, NoSchema::Untrusted(_));
                (said, if untrusted { "SCHEMA_REGISTRY_TLS" } else { "SCHEMA_REGISTRY_REFUSED" })
            }
        };
        if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            self.told = Some(Instant::now());
            tracing::warn!(
                code,
                schema = id,
                registry = self.urls.join(","),
                said,
                "a schema cannot be had now: partitions that need it wait, all others go on; trying again"
            );
        }
        false
    }
}

/// One worker's schemas: those it has seen are looked up without a lock.
#[derive(Debug)]
pub struct CachedSchemas {
    cache: SchemaCache,
    here: HashMap<u32, Arc<WriterSchema>>,
}

impl CachedSchemas {
    /// Of this cache.
    pub fn new(cache: SchemaCache) -> Self {
        Self { cache, here: HashMap::new() }
    }
}

impl Schemas for CachedSchemas {
    fn schema(&mut self, id: u32) -> Result<Arc<WriterSchema>, SchemaMissing> {
        if let Some(schema) = self.here.get(&id) {
            return Ok(Arc::clone(schema));
        }
        match self.cache.get(id) {
            Known::Here(schema) => {
                self.here.insert(id, Arc::clone(&schema));
                Ok(schema)
            }
            Known::Awaited | Known::Never(_) => Err(SchemaMissing::NotYetKnown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> WriterSchema {
        WriterSchema::json(&Columns::default(), "{}").unwrap()
    }

    fn awaited(cache: &SchemaCache) -> i64 {
        cache.shared.awaited.get()
    }

    #[test]
    fn a_schema_is_asked_for_once_and_kept() {
        let cache = SchemaCache::default();
        let mut worker = CachedSchemas::new(cache.clone());
        assert_eq!(worker.schema(7), Err(SchemaMissing::NotYetKnown));
        assert!(matches!(cache.get(7), Known::Awaited));
        assert_eq!((awaited(&cache), cache.wait()), (1, vec![7]));
        cache.answered(7, Ok(schema()));
        assert_eq!(awaited(&cache), 0);
        assert_eq!(worker.schema(7).as_deref(), Ok(&schema()));
    }

    #[test]
    fn an_outage_changes_nothing_however_long_it_lasts() {
        let cache = SchemaCache::default();
        let _ = cache.get(7);
        for _ in 0..100 {
            cache.answered(7, Err(NoSchema::Unavailable("no route".into())));
            cache.answered(7, Err(NoSchema::Refused("401".into())));
            cache.answered(7, Err(NoSchema::Untrusted("expired".into())));
        }
        assert!(matches!(cache.get(7), Known::Awaited));
        assert_eq!(cache.wait(), [7]);
    }

    #[test]
    fn an_unusable_schema_stops_and_a_missing_one_only_after_a_while() {
        let cache = SchemaCache::default();
        let _ = (cache.get(7), cache.get(8));
        cache.answered(7, Err(NoSchema::Unusable("of type Protobuf".into())));
        assert!(matches!(cache.get(7), Known::Never(stop) if stop.code == "SCHEMA_UNUSABLE"));
        cache.answered(8, Err(NoSchema::NotFound("40403".into())));
        assert!(matches!(cache.get(8), Known::Awaited));
        let long_ago = Instant::now().checked_sub(NOT_FOUND_FOR).unwrap();
        cache.lock().awaited.insert(8, Some(long_ago));
        assert!(matches!(cache.get(8), Known::Awaited), "asking again does not begin the wait anew");
        cache.answered(8, Err(NoSchema::NotFound("40403".into())));
        assert!(matches!(cache.get(8), Known::Never(stop) if stop.code == "SCHEMA_NOT_FOUND"));
        assert_eq!(awaited(&cache), 0);
    }
}
