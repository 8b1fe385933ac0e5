//! Two requests that librdkafka does not expose, or repeats until their answer is another one.
//!
//! A stable offset fetch is answered "unstable" at once, which a client waits out; here the answer itself is wanted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::client::Kafka;
use tests::stack::wait_for;

use crate::clients::PATIENCE;

const OFFSET_FETCH: (i16, i16) = (9, 7);
const DESCRIBE_TRANSACTIONS: (i16, i16) = (65, 0);

/// Loading, not available, not the coordinator: somebody else is, or this one in a moment.
const ASK_ANOTHER: [i16; 3] = [14, 15, 16];
const UNSTABLE_OFFSET_COMMIT: i16 = 88;

/// The stable committed offset of a partition.
#[derive(Debug)]
pub(super) enum Stable {
    /// Offset and metadata, if any.
    Committed(Option<(i64, String)>),
    /// A transaction holds it.
    Unstable,
}

/// What the group's coordinator says to a fetch that requires stable offsets.
pub(super) fn stable_offset(kafka: &Kafka, group: &str, topic: &str, partition: i32) -> Result<Stable> {
    // One topic with one partition; no tagged fields anywhere; offsets must be stable.
    let mut body = compact(group);
    body.push(2);
    body.extend(compact(topic));
    body.push(2);
    body.extend(partition.to_be_bytes());
    body.extend([0, 1, 0]);
    of_the_coordinator(kafka, OFFSET_FETCH, &body, |answer| {
        let mut fields = Fields(answer);
        fields.take(4)?;
        let mut found = None;
        for _ in 0..fields.count()? {
            fields.text()?;
            for _ in 0..fields.count()? {
                fields.take(4)?;
                let offset = i64::from_be_bytes(fields.array()?);
                fields.take(4)?;
                let metadata = fields.text()?;
                found = Some((offset, metadata, i16::from_be_bytes(fields.array()?)));
                fields.take(1)?;
            }
            fields.take(1)?;
        }
        let whole = i16::from_be_bytes(fields.array()?);
        match (whole, found) {
            (error, _) | (0, Some((_, _, error))) if ASK_ANOTHER.contains(&error) => Ok(None),
            (0, Some((_, _, UNSTABLE_OFFSET_COMMIT))) => Ok(Some(Stable::Unstable)),
            (0, Some((offset, metadata, 0))) => {
                Ok(Some(Stable::Committed((offset >= 0).then_some((offset, metadata)))))
            }
            other => bail!("offset fetch was answered {other:?}"),
        }
    })
}

/// The state of a transactional id: `Ongoing`, `PrepareCommit`, `CompleteCommit`, …
pub(super) fn transaction_state(kafka: &Kafka, transactional_id: &str) -> Result<String> {
    let mut body = vec![2];
    body.extend(compact(transactional_id));
    body.push(0);
    of_the_coordinator(kafka, DESCRIBE_TRANSACTIONS, &body, |answer| {
        let mut fields = Fields(answer);
        fields.take(4)?;
        ensure!(fields.count()? == 1, "not one transactional id");
        let error = i16::from_be_bytes(fields.array()?);
        if ASK_ANOTHER.contains(&error) {
            return Ok(None);
        }
        ensure!(error == 0, "error {error} for {transactional_id}");
        fields.text()?;
        Ok(Some(fields.text()?))
    })
}

/// Asks every broker until one is the coordinator; `read` says `None` where it is not.
fn of_the_coordinator<T>(
    kafka: &Kafka,
    api: (i16, i16),
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<Option<T>>,
) -> Result<T> {
    wait_for(format!("a coordinator to answer request {}", api.0), || {
        for broker in kafka.bootstrap_servers().split(',') {
            if let Some(found) = read(&ask(broker, api, body)?)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    })
}

/// Sends one request with compact strings, and returns the body of its answer.
fn ask(broker: &str, (api, version): (i16, i16), body: &[u8]) -> Result<Vec<u8>> {
    const CORRELATION: i32 = 7;
    let mut connection = TcpStream::connect(broker)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(Duration::from_secs(10)))?;
    // Api, version, correlation, client id, no tagged fields.
    let header =
        [&api.to_be_bytes()[..], &version.to_be_bytes(), &CORRELATION.to_be_bytes(), &[0, 1, b't', 0]].concat();
    let length = u32::try_from(header.len() + body.len())?;
    connection.write_all(&[&length.to_be_bytes()[..], &header, body].concat())?;
    let mut length = [0; 4];
    connection.read_exact(&mut length)?;
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    connection.read_exact(&mut answer)?;
    let mut fields = Fields(&answer);
    ensure!(i32::from_be_bytes(fields.array()?) == CORRELATION, "an answer to something else");
    fields.take(1)?;
    Ok(fields.0.to_vec())
}

fn compact(text: &str) -> Vec<u8> {
    // One byte of length is enough for the names of a test.
    let length = u8::try_from(text.len() + 1).ok().filter(|length| *length < 128).unwrap_or_default();
    std::iter::once(length).chain(text.bytes()).collect()
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("an answer that is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    /// Length of a compact array or string.
    fn count(&mut self) -> Result<usize> {
        let (mut value, mut shift) = (0_usize, 0);
        loop {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(value.saturating_sub(1));
            }
        }
    }

    fn text(&mut self) -> Result<String> {
        let length = self.count()?;
        Ok(String::from_utf8(self.take(length)?.to_vec())?)
    }
}
