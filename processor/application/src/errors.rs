//! The coded reasons to stop: what happened, what to do.

use processor_core::{Damaged, SumOverflow};
use processor_engine::cluster::Record;
use processor_engine::{Failure, StatePartition, Stop};
use schemas::debezium::KeyEncoding;
use schemas::delta::BeyondAvro;
use schemas::{DecodeError, GoodId, GoodType, Scale};

use crate::registry::SchemaMissing;

/// A record of ours that cannot be read: a newer version wrote it, or somebody else, or one with another setting.
pub(crate) fn unreadable(topic: &str, record: &Record<'_>, error: &DecodeError) -> Stop {
    let place = format!("{topic} partition {} offset {}", record.source.partition, record.offset);
    if let DecodeError::Scale { found, wanted, .. } = error {
        return pieces_scale_changed(&place, *found, *wanted);
    }
    Stop {
        code: error.code(),
        what: format!("{place}: {error}"),
        remedy: "run at least the version that wrote it; if another program wrote it, find that program and rebuild \
                 the topic from the input"
            .into(),
    }
}

/// A stored value that cannot be read. The changelog is the durable copy.
pub(crate) fn damaged(partition: StatePartition, error: Damaged) -> Failure {
    Failure::stop(
        "STATE_DAMAGED",
        format!("state of stage {} partition {}: {error}", partition.stage.0, partition.partition),
        "stop the process, remove its state directory and start it again: the state is rebuilt from the changelog",
    )
}

/// As [`damaged`], for the partition's record, which is JSON in the store too.
pub(crate) fn damaged_partition(partition: i32, error: &DecodeError) -> Failure {
    Failure::stop(
        "STATE_DAMAGED",
        format!("the record of source partition {partition}: {error}"),
        "if a newer version was running before, start that one; otherwise stop the process, remove its state \
         directory and start it again: the state is rebuilt from the changelog",
    )
}

/// Ids now hash to other partitions, away from their state: every row would be counted twice.
pub(crate) fn key_encoding_changed(
    topic: &str,
    record: &Record<'_>,
    known: KeyEncoding,
    found: KeyEncoding,
) -> Failure {
    Failure::stop(
        "KEY_ENCODING_CHANGED",
        format!(
            "{topic} partition {} offset {}: record keys were written as {known} and are now {found}; the same id \
             lies in another partition then",
            record.source.partition, record.offset
        ),
        "set the connector's key.converter (and its schemas.enable) back to what it was and let it send the rows \
         again into a new topic, or start with a new topic, prefix and application id",
    )
}

/// Goods of one type have state, and the other is asked for. Goods of both types have the same record keys: a compacted
/// topic would keep only one of the two.
pub(crate) fn good_type_changed(place: &str, known: GoodType, wanted: GoodType) -> Failure {
    Failure::stop(
        "GOOD_TYPE_CHANGED",
        format!("{place} has goods of type {known}, and --good-type is {wanted}"),
        format!(
            "give --good-type {known}; if the goods of the source are of type {wanted} now, start with a new topic prefix \
             and application id, as for a rebuild"
        ),
    )
}

/// Ids of one kind have state, and another is asked for: every row would get a second id, and be counted twice.
pub(crate) fn id_type_changed(place: &str, known: &[String], wanted: &[String]) -> Failure {
    let of = |columns: &[String]| match columns {
        [] => "of type uuid".to_owned(),
        columns => format!("of type key with the columns {}", columns.join(",")),
    };
    Failure::stop(
        "ID_TYPE_CHANGED",
        format!("{place} has ids {}, and --id-type and --id-column say ids {}", of(known), of(wanted)),
        "set --id-type and --id-column back to what they were, columns in the same order; if the record key of the \
         source is another one now, start with a new source topic, prefix and application id, as for a rebuild",
    )
}

/// Quantities are now to have another number of digits behind the point than what is stored or written has: the same
/// integers would be other quantities.
pub(crate) fn pieces_scale_changed(place: &str, known: Scale, wanted: Scale) -> Stop {
    Stop {
        code: "PIECES_SCALE_CHANGED",
        what: format!("{place} has quantities with {known} digits behind the point, and --pieces-scale is {wanted}"),
        remedy: format!(
            "give --pieces-scale {known}; if the quantities of the source need {wanted} now, start with a new topic prefix \
             and application id, as for a rebuild"
        ),
    }
}

/// A record in a registry's wire format whose schema is not at hand. Not known *yet* is no reason to stop and none to
/// set the record aside: it is read again later.
pub(crate) fn schema_missing(topic: &str, record: &Record<'_>, id: u32, missing: SchemaMissing) -> Failure {
    let place = format!("{topic} partition {} offset {}", record.source.partition, record.offset);
    match missing {
        SchemaMissing::NotYetKnown => Failure::Abort(format!("{place}: schema {id} is not known yet")),
        SchemaMissing::NoRegistry => Failure::stop(
            "SCHEMA_REGISTRY_MISSING",
            format!("{place}: the record is written with schema {id} of a registry, and no registry is configured"),
            "give --schema-registry-url the Confluent-compatible API of the registry that the connector's converter \
             writes its schemas to",
        ),
    }
}

/// A movement lies where its good does not belong.
pub(crate) fn misplaced(topic: &str, record: &Record<'_>, good_id: &GoodId, expected: i32) -> Failure {
    Failure::stop(
        "MOVEMENT_MISPLACED",
        format!(
            "{topic} partition {} offset {}: a movement of good {good_id}, which belongs to partition {expected}",
            record.source.partition, record.offset
        ),
        "the topic's partition count was changed or another program wrote to it; restore the count, or rebuild with \
         a new prefix and application id",
    )
}

/// See [`SumOverflow`].
pub(crate) fn overflow(good_id: &GoodId, error: SumOverflow) -> Failure {
    Failure::stop(
        "SUM_OVERFLOW",
        format!("good {good_id}: {error}"),
        "look for rows with absurd pieces, or for another program that writes the movements topic",
    )
}

/// The same within one transaction's coalescing.
pub(crate) fn coalescing_overflow(good_id: &GoodId) -> Failure {
    Failure::stop(
        "SUM_OVERFLOW",
        format!("good {good_id}: the movements of one transaction leave the range of their sum"),
        "look for another program that writes the movements topic",
    )
}

/// A stock delta that Avro has no room for.
pub(crate) fn beyond_avro(good_id: &GoodId, error: BeyondAvro) -> Failure {
    Failure::stop(
        "SUM_OVERFLOW",
        format!("good {good_id}: {error}"),
        "set the clock of the host right, or look for another program that writes the deltas topic",
    )
}
