//! One connection of a client, pumped in both directions by a thread each.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

use super::wire::{Request, correlation_of, read_frame};
use super::{Fate, Route, Shared, local};

/// Requests under way whose answer does not simply go through.
type Awaited = Mutex<BTreeMap<i32, Fate>>;

/// Starts both pumps; they end with the connection.
pub(super) fn start(client: &TcpStream, upstream: &TcpStream, route: Route, shared: &Arc<Shared>) {
    let started = || -> Result<()> {
        client.set_nodelay(true)?;
        upstream.set_nodelay(true)?;
        shared.lock().connections.extend([client.try_clone()?, upstream.try_clone()?]);
        let awaited = Arc::new(Awaited::default());
        let (from, to) = (client.try_clone()?, upstream.try_clone()?);
        let (shared_by, awaited_by) = (Arc::clone(shared), Arc::clone(&awaited));
        thread::Builder::new().name("proxy-requests".into()).spawn(move || {
            // An error is an end like any other: of the client, of the broker, of the proxy.
            let _ended = requests(&from, &to, route, &shared_by, &awaited_by);
            let _gone = to.shutdown(Shutdown::Write);
        })?;
        let (from, to, shared_by) = (upstream.try_clone()?, client.try_clone()?, Arc::clone(shared));
        thread::Builder::new().name("proxy-answers".into()).spawn(move || {
            let _ended = answers(&from, &to, route, &shared_by, &awaited);
            let _gone = to.shutdown(Shutdown::Both);
            let _gone = from.shutdown(Shutdown::Both);
        })?;
        Ok(())
    };
    if started().is_err() {
        let _gone = client.shutdown(Shutdown::Both);
        let _gone = upstream.shutdown(Shutdown::Both);
    }
}

fn requests(mut from: &TcpStream, mut to: &TcpStream, route: Route, shared: &Shared, awaited: &Awaited) -> Result<()> {
    let upstream: SocketAddr = local(route.listener);
    while let Some(frame) = read_frame(&mut from)? {
        shared.wait_for_network(route.broker);
        if let Some(request) = Request::of(route.broker, &frame) {
            match shared.decide(&request, upstream) {
                Some(Fate::Held) => continue,
                Some(Fate::HeldAndBroken) => {
                    from.shutdown(Shutdown::Both)?;
                    return Ok(());
                }
                Some(Fate::Delayed(time)) => thread::sleep(time),
                Some(fate @ (Fate::AnswerLost | Fate::AnsweredAfterHeld)) => {
                    awaited.lock().unwrap_or_else(PoisonError::into_inner).insert(request.correlation, fate);
                }
                Some(Fate::Copied) | None => {}
            }
        }
        to.write_all(&frame)?;
    }
    Ok(())
}

fn answers(mut from: &TcpStream, mut to: &TcpStream, route: Route, shared: &Shared, awaited: &Awaited) -> Result<()> {
    while let Some(frame) = read_frame(&mut from)? {
        shared.wait_for_network(route.broker);
        let fate = correlation_of(&frame)
            .and_then(|correlation| awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&correlation));
        match fate {
            Some(Fate::AnswerLost) => continue,
            Some(Fate::AnsweredAfterHeld) => shared.deliver_held()?,
            _ => {}
        }
        to.write_all(&frame)?;
    }
    Ok(())
}
