//! Tokens for OAUTHBEARER: one signed token, the keys by which brokers verify it, and the endpoint that gives it out.
//!
//! Owns a stand-in for an identity provider, which is none of the servers of this system. The brokers' side is Kafka's own
//! validator; the token is a real one (RS256, signed with openssl).

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::{CLIENT_SECRET, run};

/// File with the public keys.
pub(super) const KEYS: &str = "jwks.json";
/// Whom tokens are for.
pub(super) const AUDIENCE: &str = "kafka";
/// Client id at the endpoint, and the principal that brokers see.
pub(super) const CLIENT: &str = "oauth";
const TOKEN: &str = "token.jwt";
const VALID: Duration = Duration::from_secs(3_600);

/// An endpoint on the loopback interface, for as long as the process lives.
#[derive(Debug)]
pub(super) struct Tokens {
    port: u16,
}

impl Tokens {
    /// Writes key, public keys and one token into `files`.
    pub(super) fn make(files: &Path) -> Result<()> {
        let key = files.join("token.key");
        run(Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
            .arg(&key))?;
        let modulus = Command::new("openssl").args(["rsa", "-noout", "-modulus", "-in"]).arg(&key).output()?.stdout;
        let modulus = String::from_utf8(modulus)?;
        let (_, modulus) = modulus.trim().split_once('=').context("openssl tells no modulus")?;
        let bytes = (0..modulus.len()).step_by(2).map(|at| {
            let digits = modulus.get(at..at + 2).context("an odd number of digits")?;
            Ok(u8::from_str_radix(digits, 16)?)
        });
        let modulus = URL_SAFE_NO_PAD.encode(bytes.collect::<Result<Vec<u8>>>()?);
        let keys =
            json!({"keys": [{"kty": "RSA", "kid": "stack", "alg": "RS256", "use": "sig", "n": modulus, "e": "AQAB"}]});
        fs::write(files.join(KEYS), keys.to_string())?;

        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = json!({"alg": "RS256", "kid": "stack", "typ": "JWT"});
        let claims =
            json!({"sub": CLIENT, "aud": AUDIENCE, "scope": "kafka", "iat": now, "exp": now + VALID.as_secs()});
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let (text, signature) = (files.join("token.text"), files.join("token.signature"));
        fs::write(&text, &signed)?;
        run(Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(&key)
            .arg("-out")
            .arg(&signature)
            .arg(&text))?;
        fs::write(files.join(TOKEN), format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fs::read(signature)?)))?;
        Ok(())
    }

    /// Starts to give out the token of `files` to whoever has the client's secret.
    pub(super) fn serve(files: &Path) -> Result<Self> {
        let token = fs::read_to_string(files.join(TOKEN))?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        thread::Builder::new().name("tokens".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is its own affair.
                let _ = answer(&stream, &token);
            }
        })?;
        Ok(Self { port })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }
}

/// The header by which the client shows who it is.
pub(super) fn basic(secret: &str) -> String {
    STANDARD.encode(format!("{CLIENT}:{secret}"))
}

fn answer(mut stream: &TcpStream, token: &str) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut authorised, mut length) = (false, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorised = value.trim() == format!("Basic {}", basic(CLIENT_SECRET)),
            "content-length" => length = value.trim().parse()?,
            _ => {}
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    let (status, body) = if authorised {
        ("200 OK", json!({"access_token": token, "token_type": "Bearer", "expires_in": VALID.as_secs()}))
    } else {
        ("401 Unauthorized", json!({"error": "invalid_client"}))
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}
