//! Owns the HTTP surface: `/live`, `/ready`, `/startup` (JSON) and `/metrics` (Prometheus text).
//!
//! It only reads: nothing here can change what the program does, so it needs no authentication beyond the address it
//! listens on, which is loopback unless told otherwise.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::errors::Coded;
use crate::health::Health;

/// The default of `--http`.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

#[derive(Clone)]
struct Surface {
    health: Health,
    registry: Arc<Registry>,
}

/// Listens on `address` (host:port).
///
/// # Errors
/// `HTTP_BIND` when that is impossible.
pub async fn bind(address: &str) -> Result<TcpListener, Coded> {
    TcpListener::bind(address).await.map_err(|error| {
        Coded::usage("HTTP_BIND", format!("cannot listen on {address}: {error}"), "choose another address with --http")
    })
}

/// Serves until the process ends.
///
/// # Errors
/// `HTTP_SERVE` when the listener breaks.
pub async fn serve(listener: TcpListener, health: Health, registry: Arc<Registry>) -> Result<(), Coded> {
    axum::serve(listener, router(health, registry))
        .await
        .map_err(|error| Coded::unexpected("HTTP_SERVE", format!("the HTTP server ended: {error}")))
}

fn router(health: Health, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/live", get(async |State(surface): State<Surface>| json(|| surface.health.live())))
        .route("/ready", get(async |State(surface): State<Surface>| json(|| surface.health.ready())))
        .route("/startup", get(async |State(surface): State<Surface>| json(|| surface.health.startup())))
        .route("/metrics", get(async |State(surface): State<Surface>| metrics(&surface.registry)))
        .with_state(Surface { health, registry })
}

/// 200 when the probe holds, 503 when not; the body says why either way.
fn json<Report: Serialize>(probe: impl FnOnce() -> (bool, Report)) -> Response {
    let (holds, report) = probe();
    let status = if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&report) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn metrics(registry: &Registry) -> Response {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, registry) {
        Ok(()) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
