//! Connect's REST interface, and the one connector of this system.
//!
//! Owns registration (always by idempotent PUT), state and offsets of connectors. Waiting for a state is done here,
//! because Connect answers a registration long before the connector does anything.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

use crate::stack::{HostPort, PATIENCE, wait_until};

/// The connector's configuration, exactly as `source-create.sh` registers it except for where the database is.
pub fn orders_connector(source: &HostPort) -> Value {
    json!({
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": source.host,
        "database.port": source.port.to_string(),
        "database.user": "postgres",
        "database.password": "postgres",
        "database.dbname": "goods_db",
        "database.server.name": "warehouse",
        "plugin.name": "pgoutput",
        "table.include.list": "orders.transactions",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "decimal.handling.mode": "double",
        "hstore.handling.mode": "json",
        "topic.prefix": "warehouse",
        "output.data.format": "JSON",
        "message.key.columns": "orders.transactions:id",
    })
}

/// How a converter writes keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain JSON, as `source-create.sh` has it.
    Json,
    /// Avro behind the id of its schema in the registry.
    Avro,
    /// JSON behind the id of its schema in the registry.
    JsonSchema,
}

/// The connector with other converters; `registry` is the registry's base URL as Connect sees it.
pub fn orders_connector_in(source: &HostPort, key: Format, value: Format, registry: &str) -> Value {
    let mut configuration = orders_connector(source);
    let mut set = |name: &str, value: &str| {
        configuration.as_object_mut().map(|settings| settings.insert(name.to_owned(), Value::from(value)));
    };
    for (part, format) in [("key", key), ("value", value)] {
        let settings: &[(&str, &str)] = match format {
            Format::Json => continue,
            Format::Avro => &[
                ("", "io.apicurio.registry.utils.converter.AvroConverter"),
                (".apicurio.registry.url", &format!("{registry}/apis/registry/v2")),
                (".apicurio.registry.auto-register", "true"),
                (".apicurio.registry.find-latest", "true"),
                (".apicurio.registry.as-confluent", "true"),
                // By default what is known is asked for again after 30 s, and Connect's task ends if the registry is down then.
                (".apicurio.registry.check-period-ms", "86400000"),
                // In the payload: Confluent's wire format. Headers are Apicurio's own.
                (".apicurio.registry.headers.enabled", "false"),
            ],
            Format::JsonSchema => {
                &[("", "stack.JsonSchemaConverter"), (".schema.registry.url", &format!("{registry}/apis/ccompat/v7"))]
            }
        };
        for (name, value) in settings {
            set(&format!("{part}.converter{name}"), value);
        }
    }
    // Names that Avro accepts, whatever the topic is called.
    set("schema.name.adjustment.mode", "avro");
    configuration
}

/// States of a connector and of its tasks, as Connect names them (`RUNNING`, `FAILED`, `STOPPED` …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorState {
    /// State of the connector itself.
    pub connector: String,
    /// State of each task, in order.
    pub tasks: Vec<String>,
    /// The stack trace of the first failed part, if any.
    pub trace: Option<String>,
}

impl ConnectorState {
    /// Whether the connector and at least one task run, and nothing else.
    pub fn is_running(&self) -> bool {
        self.connector == "RUNNING" && !self.tasks.is_empty() && self.tasks.iter().all(|task| task == "RUNNING")
    }
}

/// A client of one Connect worker.
#[derive(Debug, Clone)]
pub struct Connect {
    agent: Agent,
    url: String,
}

impl Connect {
    /// `url` as in [`crate::stack::Addresses::connect_url`].
    pub fn new(url: &str) -> Self {
        let configuration = Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false);
        Self { agent: configuration.build().into(), url: url.trim_end_matches('/').to_owned() }
    }

    /// Whether the worker has joined its group and serves requests.
    pub fn is_healthy(&self) -> bool {
        self.agent.get(format!("{}/health", self.url)).call().is_ok_and(|response| response.status().is_success())
    }

    /// Creates the connector or changes its configuration.
    pub fn put_config(&self, connector: &str, configuration: &Value) -> Result<()> {
        // A worker that is just rebalancing answers 409 and asks to be tried again.
        wait_until(format!("Connect to take the configuration of {connector}"), || {
            let response = self.agent.put(self.path(connector, "/config")).send_json(configuration)?;
            accepted(response)
        })
    }

    /// Creates the connector or changes its configuration, and waits until it and its task run.
    pub fn register(&self, connector: &str, configuration: &Value) -> Result<()> {
        self.put_config(connector, configuration)?;
        self.wait_running(connector)
    }

    /// Current state; `None` while Connect does not know it (yet).
    pub fn state(&self, connector: &str) -> Result<Option<ConnectorState>> {
        let mut response = self.agent.get(self.path(connector, "/status")).call()?;
        if matches!(response.status().as_u16(), 404 | 409) {
            return Ok(None);
        }
        if !response.status().is_success() {
            bail!("Connect answers {}: {}", response.status(), response.body_mut().read_to_string()?);
        }
        let status: Value = response.body_mut().read_json()?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let part = status.get("connector").context("a status without a connector")?;
        let tasks = status.get("tasks").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Some(ConnectorState {
            connector: text(part, "state").context("a connector without a state")?,
            tasks: tasks.iter().filter_map(|task| text(task, "state")).collect(),
            trace: std::iter::once(part).chain(&tasks).find_map(|part| text(part, "trace")),
        }))
    }

    /// Waits until the connector and its task run; fails at once with the trace when one of them has failed.
    pub fn wait_running(&self, connector: &str) -> Result<()> {
        wait_until(format!("connector {connector} to run"), || {
            let Some(state) = self.state(connector)? else { return Ok(false) };
            if state.connector == "FAILED" || state.tasks.iter().any(|task| task == "FAILED") {
                bail!("connector {connector} failed: {}", state.trace.unwrap_or_default());
            }
            Ok(state.is_running())
        })
    }

    /// Waits until the connector and its task run, restarting whatever fails meanwhile, as an operator would.
    pub fn keep_running(&self, connector: &str) -> Result<()> {
        wait_until(format!("connector {connector} to run again"), || {
            let Some(state) = self.state(connector)? else { return Ok(false) };
            if state.connector == "FAILED" || state.tasks.iter().any(|task| task == "FAILED") {
                self.restart(connector)?;
                return Ok(false);
            }
            Ok(state.is_running())
        })
    }

    /// Restarts the connector and its tasks where they have failed.
    pub fn restart(&self, connector: &str) -> Result<()> {
        let path = self.path(connector, "/restart?includeTasks=true&onlyFailed=true");
        wait_until(format!("connector {connector} to restart"), || {
            accepted(self.agent.post(path.as_str()).send_empty()?)
        })
    }

    /// Makes the connector forget how far it has read, so that it takes a new snapshot: stop, delete offsets, resume.
    pub fn forget_offsets(&self, connector: &str) -> Result<()> {
        self.stop(connector)?;
        self.delete_offsets(connector)?;
        self.resume(connector)?;
        self.wait_running(connector)
    }

    /// Deletes the offsets of a stopped connector.
    pub fn delete_offsets(&self, connector: &str) -> Result<()> {
        wait_until(format!("the offsets of {connector} to be deleted"), || {
            accepted(self.agent.delete(self.path(connector, "/offsets")).call()?)
        })
    }

    /// The offset that is stored of a connector with one source partition, in the connector's own words.
    pub fn stored_offset(&self, connector: &str) -> Result<Option<Value>> {
        let mut response = self.agent.get(self.path(connector, "/offsets")).call()?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let offsets: Value = response.body_mut().read_json()?;
        Ok(offsets.pointer("/offsets/0/offset").filter(|offset| !offset.is_null()).cloned())
    }

    /// Stops the connector: its tasks are gone, its offsets stay.
    pub fn stop(&self, connector: &str) -> Result<()> {
        wait_until(format!("connector {connector} to be told to stop"), || {
            accepted(self.agent.put(self.path(connector, "/stop")).send_empty()?)
        })?;
        wait_until(format!("connector {connector} to stop"), || {
            let state = self.state(connector)?;
            Ok(state.is_some_and(|state| state.connector == "STOPPED" && state.tasks.is_empty()))
        })
    }

    /// Lets a stopped or paused connector go on.
    pub fn resume(&self, connector: &str) -> Result<()> {
        wait_until(format!("connector {connector} to resume"), || {
            accepted(self.agent.put(self.path(connector, "/resume")).send_empty()?)
        })
    }

    /// Removes the connector; one that does not exist is no error.
    pub fn delete(&self, connector: &str) -> Result<()> {
        wait_until(format!("connector {connector} to be deleted"), || {
            let response = self.agent.delete(self.path(connector, "")).call()?;
            if response.status().as_u16() == 404 { Ok(true) } else { accepted(response) }
        })
    }

    fn path(&self, connector: &str, rest: &str) -> String {
        format!("{}/connectors/{connector}{rest}", self.url)
    }
}

/// True when done, false when Connect asks to be tried again, an error with its words otherwise.
fn accepted(mut response: ureq::http::Response<ureq::Body>) -> Result<bool> {
    let status = response.status();
    if status.is_success() {
        return Ok(true);
    }
    let body = response.body_mut().read_to_string().unwrap_or_default();
    // 409: rebalancing. 500 with a time-out: the worker waits for its group, e.g. after its brokers were down.
    if status.as_u16() == 409 || (status.as_u16() == 500 && body.contains("timed out")) {
        return Ok(false);
    }
    bail!("Connect answers {status}: {body}")
}
