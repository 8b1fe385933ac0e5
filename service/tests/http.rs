//! The HTTP surface as a prober and Prometheus see it, over a real socket.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in #[test] functions only, and helpers are none")]

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use service::{Exit, Health, Operations, healthcheck};

fn get(operations: &Operations, path: &str) -> (i32, String) {
    let response = minreq::get(format!("http://{}{path}", operations.address)).with_timeout(5).send().unwrap();
    (response.status_code, response.as_str().unwrap().to_owned())
}

#[test]
fn probes_follow_the_health_handle_and_metrics_are_prometheus_text() {
    let health = Health::new();
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    registry.register("rows", "Rows written", counter.clone());
    counter.inc_by(3);
    let operations = Operations::start("127.0.0.1:0", health.clone(), Arc::new(registry)).unwrap();
    let address = operations.address.to_string();

    assert_eq!(get(&operations, "/live").0, 200);
    assert_eq!(get(&operations, "/startup").0, 503);
    assert_eq!(healthcheck::run(&address), Exit::Unexpected);
    let restore = health.progress("restore partition 3");
    restore.set(5, 10);
    assert_eq!(
        get(&operations, "/startup").1,
        r#"{"started":false,"progress":[{"name":"restore partition 3","done":5,"total":10,"finished":false}]}"#
    );
    health.set_started();
    assert_eq!(get(&operations, "/ready"), (200, r#"{"ready":true,"reasons":[]}"#.to_owned()));
    assert_eq!(healthcheck::run(&address), Exit::Clean);
    assert!(get(&operations, "/metrics").1.contains("rows_total 3"));
}

#[test]
fn an_address_in_use_is_refused_with_a_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Operations::start(&address, Health::new(), Arc::new(Registry::default())).unwrap_err();
    assert_eq!(error.code, "HTTP_BIND");
    assert!(error.what.contains(&address));
}
