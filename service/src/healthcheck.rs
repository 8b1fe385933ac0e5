//! Owns the `healthcheck` subcommand: asks a running program for `/ready`, because images have no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::errors::Exit;

/// Flags of `healthcheck`; `--http` is the same setting as that of `run`, so that both agree when it is a variable.
#[derive(Debug, Clone, clap::Args)]
// No group: its name would be the struct's and collide with those of the program's own arguments.
#[group(skip)]
pub struct Arguments {
    /// Address (host:port) of the program to ask
    #[arg(long, default_value = crate::http::DEFAULT_ADDRESS, value_name = "ADDRESS")]
    pub http: String,
}

/// Asks `/ready` at `address` and prints the answer: clean when ready, [`Exit::Unexpected`] (1) when not or unreachable.
pub fn run(address: &str) -> Exit {
    let url = format!("http://{}/ready", reachable(address));
    match minreq::get(&url).with_timeout(5).send() {
        Ok(response) => {
            println!("{}", response.as_str().unwrap_or("the answer is not text"));
            if response.status_code == 200 { Exit::Clean } else { Exit::Unexpected }
        }
        Err(error) => {
            eprintln!("{url}: {error}");
            Exit::Unexpected
        }
    }
}

/// A program that listens on every address is asked on loopback: `0.0.0.0` is no destination.
fn reachable(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => {
            let loopback = match socket.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            SocketAddr::new(loopback, socket.port()).to_string()
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(reachable("[::]:8080"), "[::1]:8080");
        assert_eq!(reachable("sink-1:8080"), "sink-1:8080");
    }
}
