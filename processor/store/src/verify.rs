//! stub
use std::{io, path::Path};
pub(crate) fn check(_file: &Path, _thorough: bool) -> io::Result<Result<(), String>> {
    Ok(Ok(()))
}
