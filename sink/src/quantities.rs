//! Owns what quantities are in the target: `bigint` where pieces are whole, else `numeric` with as many digits behind the
//! point as they have; settled while the tables are empty.

use std::error::Error;

use schemas::Scale;
use service::Coded;
use sqlx::encode::IsNull;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, Postgres};
use sqlx::{Encode, PgConnection, Type};

use crate::columns::{self, Column};
use crate::postgres::Failure;

/// Digits of a column of `numeric` that is not whole, those behind the point among them.
const DIGITS: u32 = 38;

/// Quantities of one scale, as a parameter: `bigint[]`, or `text[]` to be cast to `numeric[]`, because no number of the
/// driver holds 38 digits exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quantities {
    /// Whole ones.
    Whole(Vec<i64>),
    /// Such of a scale, each with all of its digits.
    Exact(Scale, Vec<String>),
}

impl Default for Quantities {
    fn default() -> Self {
        Self::new(Scale::WHOLE)
    }
}

impl Quantities {
    /// None yet, of this scale.
    pub fn new(scale: Scale) -> Self {
        if scale.is_whole() { Self::Whole(Vec::new()) } else { Self::Exact(scale, Vec::new()) }
    }

    /// Those of rows, which have room in every column.
    pub fn of_rows(scale: Scale, units: impl Iterator<Item = i64>) -> Self {
        if scale.is_whole() {
            return Self::Whole(units.collect());
        }
        Self::Exact(scale, units.map(|units| scale.text(units.into())).collect())
    }

    /// Adds one, given in units of the scale; `false` when the target's column has no room for it.
    pub fn push(&mut self, units: i128) -> bool {
        match self {
            Self::Whole(numbers) => i64::try_from(units).map(|number| numbers.push(number)).is_ok(),
            Self::Exact(scale, texts) => {
                let fits = units.unsigned_abs() < 10_u128.pow(DIGITS);
                if fits {
                    texts.push(scale.text(units));
                }
                fits
            }
        }
    }

    /// Of two statements the one for these.
    pub(crate) fn either<'s>(&self, whole: &'s str, exact: &'s str) -> &'s str {
        match self {
            Self::Whole(_) => whole,
            Self::Exact(..) => exact,
        }
    }
}

impl Type<Postgres> for Quantities {
    fn type_info() -> PgTypeInfo {
        <Vec<i64> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Quantities {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(match self {
            Self::Whole(_) => Self::type_info(),
            Self::Exact(..) => <Vec<String> as Type<Postgres>>::type_info(),
        })
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, Box<dyn Error + Send + Sync>> {
        match self {
            Self::Whole(numbers) => Encode::<Postgres>::encode_by_ref(numbers, buffer),
            Self::Exact(_, texts) => Encode::<Postgres>::encode_by_ref(texts, buffer),
        }
    }
}

/// Gives the columns room for the digits of this scale while there are no rows; refuses another one afterwards.
///
/// # Errors
/// `SINK_PIECES_SCALE` when there are rows, and columns for another scale.
pub(crate) async fn settle(connection: &mut PgConnection, scale: Scale) -> Result<(), Failure> {
    let whole = scale.is_whole();
    let column = |table, name, whole_type: &str, digits: u32| Column {
        table,
        name,
        wanted: if whole { whole_type.to_owned() } else { numeric(digits, scale) },
        collation: "",
    };
    let columns = [
        column("remains", "cnt", "bigint", DIGITS),
        // One digit more: as many as 128 bits may have.
        column("held_goods", "remains", "numeric(39,0)", DIGITS + 1),
        column("transaction_log", "pcs", "bigint", DIGITS),
    ];
    // What an operator has made of a column of whole pieces is the operator's business, as long as it is not one of ours
    // for another scale; digits would be rounded away where there is no room, so there the type is exact, or has no limit.
    let will_do = |found: &str| if whole { !is_for_digits(found) } else { found == "numeric" };
    let fits = |column: &Column, found: &str| found == column.wanted || will_do(found);
    columns::settle(connection, &columns, fits, |found| mismatch(found, scale)).await
}

fn numeric(digits: u32, scale: Scale) -> String {
    format!("numeric({digits},{scale})")
}

/// Whether a type is that of a column of ours whose pieces are not whole.
fn is_for_digits(found: &str) -> bool {
    let mut scales = (1..=Scale::MAX.digits()).filter_map(|digits| Scale::try_from(digits).ok());
    scales.any(|scale| [DIGITS, DIGITS + 1].iter().any(|digits| numeric(*digits, scale) == found))
}

fn mismatch(found: &str, scale: Scale) -> Coded {
    Coded::refused(
        "SINK_PIECES_SCALE",
        format!("the target has quantities in columns of type {found}, and --pieces-scale is {scale}"),
        "give --pieces-scale the same value as the processor's, and a target of its own; if the quantities of this one are \
         to have other digits, empty remains.remains, remains.held_goods, remains.transaction_log and remains.progress in \
         one transaction and start again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_fits_as_long_as_its_column_has_digits_for_it() {
        let most = 10_i128.pow(38) - 1;
        let three = Scale::try_from(3).unwrap();
        let mut quantities = Quantities::new(three);
        assert!(quantities.push(-50) && quantities.push(most) && quantities.push(-most));
        assert!(!quantities.push(most + 1) && !quantities.push(i128::MIN));
        let texts = ["-0.050", "99999999999999999999999999999999999.999", "-99999999999999999999999999999999999.999"];
        assert_eq!(quantities, Quantities::Exact(three, texts.map(str::to_owned).to_vec()));
        assert_eq!(Quantities::of_rows(three, [i64::MAX].into_iter()).either("whole", "exact"), "exact");
    }

    #[test]
    fn only_types_of_our_own_are_told_from_what_operators_make_of_columns() {
        assert!(is_for_digits("numeric(38,3)") && is_for_digits("numeric(39,9)"));
        assert!(["bigint", "numeric", "numeric(39,0)", "numeric(20,3)"].into_iter().all(|found| !is_for_digits(found)));
    }
}
