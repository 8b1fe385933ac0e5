//! A proxy between one client and the brokers, that delays, loses and delivers late what a test chooses.
//!
//! Owns the connections of whoever bootstraps through it, and the [`Rule`]s for their requests. It never rewrites
//! anything: the brokers of [`NativeOptions::with_proxied_listener`] have a listener whose advertised port is the proxy's, so
//! that a client that comes through the proxy once is sent through it for ever.
//!
//! What it guards: after *any* indefinite answer a producer is retired, so that a request that reaches the broker late can
//! do nothing. The wire shows such a request as TCP does when a network heals, or a broker that slept: long after its
//! sender has closed the connection and gone on.
//!
//! [`NativeOptions::with_proxied_listener`]: crate::native::NativeOptions::with_proxied_listener
//!
//! - `wire`: as much of the protocol as a rule needs to choose
//! - `link`: one connection, pumped in both directions

mod link;
mod wire;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::stack::PATIENCE;
pub use wire::{Api, Request};

/// Where a broker's proxied listener is, and where it says that it is.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The broker's number.
    pub broker: u8,
    /// Port that clients are told: the proxy listens there.
    pub advertised: u16,
    /// Port on which the broker listens.
    pub listener: u16,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Kept back until [`Proxy::deliver_held`]; its sender never hears of it again.
    Held,
    /// As held, and the connection breaks.
    HeldAndBroken,
    /// Delivered, and a copy is held, as if its sender had repeated it on another connection.
    Copied,
    /// Delivered; the answer is lost.
    AnswerLost,
    /// Delivered after that time; what follows on the connection waits, too.
    Delayed(Duration),
    /// Delivered; before its sender gets the answer, everything held is delivered.
    AnsweredAfterHeld,
}

type Matcher = Box<dyn Fn(&Request<'_>) -> bool + Send>;

/// Which requests meet which fate, how often.
pub struct Rule {
    matches: Matcher,
    fate: Fate,
    left: usize,
}

impl Rule {
    /// A rule for the next request that matches.
    pub fn once(fate: Fate, matches: impl Fn(&Request<'_>) -> bool + Send + 'static) -> Self {
        Self { matches: Box::new(matches), fate, left: 1 }
    }

    /// For the next so many.
    #[must_use]
    pub fn times(self, left: usize) -> Self {
        Self { left, ..self }
    }
}

/// A request that was kept back.
struct Held {
    api: Api,
    frame: Vec<u8>,
    upstream: SocketAddr,
}

/// What a broker said to a request that was delivered late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// The kind of request.
    pub api: Api,
    /// Kafka's error code (0: it took effect); `None` where this proxy cannot read the answer.
    pub error: Option<i16>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    held: Vec<Held>,
    late: Vec<Late>,
    met: usize,
    cut_off: BTreeSet<u8>,
    connections: Vec<TcpStream>,
    is_closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A running proxy. Dropping it closes every connection.
pub struct Proxy {
    routes: Vec<Route>,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on the advertised port of every broker.
    pub fn start(routes: Vec<Route>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut acceptors = Vec::new();
        for route in &routes {
            let listener = TcpListener::bind(local(route.advertised))
                .with_context(|| format!("the proxy cannot listen on port {}", route.advertised))?;
            let (shared, route) = (Arc::clone(&shared), *route);
            let accept = move || accept(&listener, route, &shared);
            acceptors.push(std::thread::Builder::new().name(format!("proxy-{}", route.broker)).spawn(accept)?);
        }
        Ok(Self { routes, shared, acceptors })
    }

    /// The bootstrap servers of a client that is to come through here.
    pub fn bootstrap_servers(&self) -> String {
        let addresses: Vec<String> = self.routes.iter().map(|route| local(route.advertised).to_string()).collect();
        addresses.join(",")
    }

    /// Adds a rule; of several that match the oldest counts.
    pub fn add(&self, rule: Rule) {
        self.shared.lock().rules.push(rule);
    }

    /// Forgets all rules; what is held stays held.
    pub fn forget_rules(&self) {
        self.shared.lock().rules.clear();
    }

    /// How many requests met a rule so far.
    pub fn met(&self) -> usize {
        self.shared.lock().met
    }

    /// How many requests are held.
    pub fn held(&self) -> usize {
        self.shared.lock().held.len()
    }

    /// Delivers everything held, in order and on a connection of its own each, as if it had been under way all the time.
    pub fn deliver_held(&self) -> Result<()> {
        self.shared.deliver_held()
    }

    /// What brokers said to everything that was delivered late.
    pub fn late(&self) -> Vec<Late> {
        self.shared.lock().late.clone()
    }

    /// Nothing goes to these brokers or comes from them any more: no reset, no end of file, silence.
    pub fn cut_off(&self, brokers: impl IntoIterator<Item = u8>) {
        self.shared.lock().cut_off.extend(brokers);
    }

    /// The network heals. What was sent meanwhile arrives now, also where its sender has gone.
    pub fn reconnect(&self) {
        self.shared.lock().cut_off.clear();
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        for connection in state.connections.drain(..) {
            let _gone = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        for route in &self.routes {
            // Wakes the acceptor, which then sees that it is over.
            drop(TcpStream::connect(local(route.advertised)));
        }
        for acceptor in self.acceptors.drain(..) {
            let _panicked = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a broker is cut off.
    fn wait_for_network(&self, broker: u8) {
        let mut state = self.lock();
        while state.cut_off.contains(&broker) && !state.is_closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What becomes of a request; one that is held is kept here.
    fn decide(&self, request: &Request<'_>, upstream: SocketAddr) -> Option<Fate> {
        let mut state = self.lock();
        let rule = state.rules.iter_mut().find(|rule| rule.left > 0 && (rule.matches)(request))?;
        rule.left -= 1;
        let fate = rule.fate;
        state.met += 1;
        if matches!(fate, Fate::Held | Fate::HeldAndBroken | Fate::Copied) {
            state.held.push(Held { api: request.api, frame: request.frame.to_vec(), upstream });
        }
        Some(fate)
    }

    fn deliver_held(&self) -> Result<()> {
        let held = std::mem::take(&mut self.lock().held);
        for held in held {
            let mut upstream = TcpStream::connect(held.upstream)?;
            upstream.set_read_timeout(Some(PATIENCE))?;
            upstream.write_all(&held.frame)?;
            let answer = wire::read_frame(&mut upstream)?.context("a broker closed instead of answering")?;
            self.lock().late.push(Late { api: held.api, error: wire::error_of(held.api, &answer) });
        }
        Ok(())
    }
}

fn accept(listener: &TcpListener, route: Route, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.lock().is_closed {
            return;
        }
        // A broker that is down refuses, and so do we: the connection is closed.
        let (Ok(client), Ok(upstream)) = (client, TcpStream::connect(local(route.listener))) else { continue };
        link::start(&client, &upstream, route, shared);
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
