//! As much of Kafka's protocol as is needed to tell requests apart: frames, the request header, and the first fields of a
//! few transactional requests.

use std::io::{ErrorKind, Read};

use anyhow::{Result, ensure};

/// Frames beyond this are no frames (the brokers' own limit).
const LARGEST_FRAME: usize = 100 << 20;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Records of a producer.
    Produce,
    /// What a consumer asks for.
    Fetch,
    /// A partition becomes part of a transaction.
    AddPartitionsToTxn,
    /// The group's offsets become part of a transaction.
    AddOffsetsToTxn,
    /// `EndTxn` that commits.
    Commit,
    /// `EndTxn` that aborts.
    Abort,
    /// Offsets within a transaction.
    TxnOffsetCommit,
    /// A producer asks for its id and epoch.
    InitProducerId,
    /// Anything else, by Kafka's number.
    Other(i16),
}

impl Api {
    fn of(number: i16) -> Self {
        match number {
            0 => Self::Produce,
            1 => Self::Fetch,
            22 => Self::InitProducerId,
            24 => Self::AddPartitionsToTxn,
            25 => Self::AddOffsetsToTxn,
            // Which of the two it is, stands further behind.
            26 => Self::Abort,
            28 => Self::TxnOffsetCommit,
            number => Self::Other(number),
        }
    }
}

/// A request as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// To which broker it goes.
    pub broker: u8,
    /// Its kind.
    pub api: Api,
    /// Whose transaction it belongs to, where it is known.
    pub transactional_id: Option<&'a str>,
    pub(super) correlation: i32,
    pub(super) frame: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a whole frame; `None` where it is no request.
    pub(super) fn of(broker: u8, frame: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(frame.get(4..)?);
        let (api, version, correlation) = (Api::of(fields.i16()?), fields.i16()?, fields.i32()?);
        let client_id_bytes = usize::try_from(fields.i16()?).unwrap_or(0);
        fields.take(client_id_bytes)?;
        let mut request = Self { broker, api, transactional_id: None, correlation, frame };
        // The first version of each whose strings are compact and whose header ends in tagged fields.
        let flexible = match api {
            Api::Produce => version >= 9,
            Api::AddPartitionsToTxn | Api::AddOffsetsToTxn | Api::Abort | Api::TxnOffsetCommit => version >= 3,
            Api::InitProducerId => version >= 2,
            Api::Fetch | Api::Commit | Api::Other(_) => return Some(request),
        };
        if flexible {
            // Number of tagged fields in the header; librdkafka sends none.
            fields.take(1)?;
        }
        request.transactional_id = fields.string(flexible);
        if api == Api::Abort {
            // Producer id and epoch.
            fields.take(10)?;
            if fields.take(1)? == [1] {
                request.api = Api::Commit;
            }
        }
        Some(request)
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self, compact: bool) -> Option<&'a str> {
        let count = if compact {
            // One more than the length; of one byte up to 126, and no transactional id of ours is longer.
            let first = *self.take(1)?.first()?;
            usize::from(first & 0x7f).checked_sub(1)?
        } else {
            usize::try_from(self.i16()?).ok()?
        };
        std::str::from_utf8(self.take(count)?).ok()
    }
}

/// Reads one frame, its length included; `None` at the end.
pub(super) fn read_frame(from: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut frame = vec![0; 4];
    match from.read_exact(&mut frame) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = frame.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    ensure!(length <= LARGEST_FRAME, "a frame of {length} bytes");
    frame.resize(4 + length, 0);
    let (_, payload) = frame.split_at_mut(4);
    from.read_exact(payload)?;
    Ok(Some(frame))
}

/// Correlation id of an answer.
pub(super) fn correlation_of(answer: &[u8]) -> Option<i32> {
    Fields(answer.get(4..)?).i32()
}

/// The error code in an answer of a form that is the same in every version librdkafka uses; of offsets, that of the first
/// partition.
pub(super) fn error_of(api: Api, answer: &[u8]) -> Option<i16> {
    match api {
        // Length, correlation id, throttle time.
        Api::Commit | Api::Abort => Fields(answer.get(12..)?).i16(),
        Api::TxnOffsetCommit => {
            // The same with tagged fields in between, the number of topics; then name, number of partitions, partition.
            let mut fields = Fields(answer.get(14..)?);
            fields.string(true)?;
            fields.take(5)?;
            fields.i16()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[&[u8]]) -> Vec<u8> {
        let payload = payload.concat();
        [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], &payload].concat()
    }

    #[test]
    fn a_commit_is_told_from_an_abort_and_from_everything_else() {
        let end = |commits: u8| {
            frame(&[&[0, 26, 0, 1, 0, 0, 0, 7, 0, 1, b'c'], &[0, 3], b"t-0", &[0; 8], &[0, 5], &[commits]])
        };
        let (commit, abort) = (end(1), end(0));
        let request = Request::of(2, &commit).unwrap();
        assert_eq!(request.api, Api::Commit);
        assert_eq!((request.broker, request.correlation, request.transactional_id), (2, 7, Some("t-0")));
        assert_eq!(Request::of(2, &abort).unwrap().api, Api::Abort);
        let fetch = frame(&[&[0, 1, 0, 11, 0, 0, 0, 8, 0, 0]]);
        assert_eq!(Request::of(1, &fetch).unwrap().api, Api::Fetch);
    }

    #[test]
    fn the_transactional_id_is_found_in_both_forms() {
        let old = frame(&[&[0, 0, 0, 7, 0, 0, 0, 1, 0, 0], &[0, 3], b"t-1"]);
        let compact = frame(&[&[0, 0, 0, 9, 0, 0, 0, 1, 0, 0], &[0], &[4], b"t-1"]);
        for frame in [old, compact] {
            assert_eq!(Request::of(1, &frame).unwrap().transactional_id, Some("t-1"));
        }
    }

    #[test]
    fn the_error_of_an_answer_is_found_where_a_form_of_it_is_known() {
        let end = frame(&[&[0, 0, 0, 7], &[0; 4], &[0, 47]]);
        assert_eq!(error_of(Api::Commit, &end), Some(47));
        let offsets = frame(&[&[0, 0, 0, 7, 0], &[0; 4], &[2, 3], b"in", &[2], &[0, 0, 0, 9], &[0, 90], &[0, 0, 0]]);
        assert_eq!(error_of(Api::TxnOffsetCommit, &offsets), Some(90));
        assert_eq!(error_of(Api::Produce, &end), None);
    }

    #[test]
    fn what_is_cut_short_is_no_request() {
        assert!(Request::of(1, &frame(&[&[0, 26, 0]])).is_none());
        assert!(read_frame(&mut &[0, 0, 0, 9, 1][..]).is_err());
        assert!(read_frame(&mut &[][..]).unwrap().is_none());
    }
}
