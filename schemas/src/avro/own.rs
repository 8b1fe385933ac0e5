//! What all of our own values in Avro share: the first field, which says what schema they have.
//!
//! It stands in place of the schema: without it such a value cannot be read, and asking a registry would make a restore
//! depend on one. There is a schema for each type of goods and not a union: no reader of integers could read the texts,
//! so it would be compatible with nothing, and a topic has goods of one type. And one for each scale of quantities,
//! since Avro keeps the scale in the schema.

use std::borrow::Cow;

use super::{Input, Malformed, write};
use crate::debezium::registered::framed;
use crate::{DecodeError, GoodId, GoodType, Scale};

/// Of integers and whole pieces: the schema in `avro/` as it stands.
const INTEGER_GOODS: i64 = 1;
/// Of texts and whole pieces: that with `-text` in its name. Each digit behind the point adds [`GOOD_TYPES`].
const TEXT_GOODS: i64 = 2;
/// How many types of goods there are.
const GOOD_TYPES: i64 = 2;

/// The first field of a value of these goods and quantities.
fn format(good_type: GoodType, scale: Scale) -> i64 {
    let whole = match good_type {
        GoodType::Integer => INTEGER_GOODS,
        GoodType::Text => TEXT_GOODS,
    };
    whole + GOOD_TYPES * i64::from(scale.digits())
}

/// The schema of a scale, made of that of whole pieces with these goods: its decimals are of the scale, and its first
/// field is another.
pub(crate) fn schema(of_whole_pieces: &'static str, good_type: GoodType, scale: Scale) -> Cow<'static, str> {
    if scale.is_whole() {
        return Cow::Borrowed(of_whole_pieces);
    }
    let default = |scale| format!("\"default\": {}", format(good_type, scale));
    let written = of_whole_pieces.replace("\"scale\": 0", &format!("\"scale\": {scale}"));
    Cow::Owned(written.replace(&default(Scale::WHOLE), &default(scale)))
}

/// Appends what comes before the other fields of a value.
pub(crate) fn begin(out: &mut Vec<u8>, schema_id: u32, good_type: GoodType, scale: Scale) {
    framed(schema_id, out);
    write::long(out, format(good_type, scale));
}

/// Reads a value of this scale to its end, given what reads its other fields.
///
/// # Errors
/// `FORMAT_NEWER`, `PIECES_SCALE_CHANGED` for another scale, `RECORD_MALFORMED` for anything else that is no such value.
pub(crate) fn read<'a, T>(
    record: &'static str,
    payload: &'a [u8],
    scale: Scale,
    fields: impl FnOnce(GoodType, &mut Input<'a>) -> Result<T, Malformed>,
) -> Result<T, DecodeError> {
    let malformed = |Malformed(why)| DecodeError::malformed(record, format!("in Avro: {why}"));
    let mut input = Input::new(payload);
    let found = input.long().map_err(malformed)?;
    let largest = format(GoodType::Text, Scale::MAX);
    if found > largest {
        let (found, supported) = (found.unsigned_abs(), largest.unsigned_abs());
        return Err(DecodeError::FormatNewer { record, found, supported });
    }
    let digits = u8::try_from(found.saturating_sub(INTEGER_GOODS).div_euclid(GOOD_TYPES)).ok();
    let Some(of) = digits.and_then(|digits| Scale::try_from(digits).ok()) else {
        return Err(malformed(Malformed("it has no format")));
    };
    if of != scale {
        return Err(DecodeError::Scale { record, found: of, wanted: scale });
    }
    let good_type = if found == format(GoodType::Integer, scale) { GoodType::Integer } else { GoodType::Text };
    let value = fields(good_type, &mut input).map_err(malformed)?;
    if input.left() == 0 { Ok(value) } else { Err(malformed(Malformed("bytes are left over"))) }
}

/// Appends a good.
pub(crate) fn push_good(out: &mut Vec<u8>, good_id: &GoodId) {
    match good_id {
        GoodId::Integer(value) => write::long(out, *value),
        GoodId::Text(text) => write::text(out, text),
    }
}

/// Reads a good of this type.
pub(crate) fn good(good_type: GoodType, input: &mut Input<'_>) -> Result<GoodId, Malformed> {
    match good_type {
        GoodType::Integer => input.long().map(GoodId::Integer),
        GoodType::Text => GoodId::from_text(input.text()?).map_err(|_| Malformed("a text that is no good")),
    }
}
