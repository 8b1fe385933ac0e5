//! Owns texts that must not be shown: a secret never, a database URL without its password.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A password, a token or the like: `Debug` and `Display` show three stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for the library that needs it only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a file, without the line breaks at its end.
    ///
    /// # Errors
    /// In half a sentence, naming the file and never its content.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err(format!("{shown} is empty")) } else { Ok(Self(text.to_owned())) }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// A database URL whose `Debug` and `Display` mask the password.
///
/// Reading one never fails: a parser's error message would show the text. Whoever connects finds out what is wrong.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL with its password, for the driver only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `scheme://user:***@host…`, and `***` for the value of a `password` parameter.
    fn masked(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else { return "***".to_owned() };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (mut authority, mut path) = rest.split_at(end);
        // A password with an unescaped slash ends up in the path: take the last @ of all as the border instead.
        if let Some(at) = rest.rfind('@').filter(|at| *at >= end) {
            (authority, path) = rest.split_at(at);
            path = path.trim_start_matches('@');
            let user = authority.split(':').next().unwrap_or_default();
            return format!("{scheme}://{user}:***@{}", mask_parameters(path));
        }
        let authority = match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                format!("{}:***@{host}", user.split(':').next().unwrap_or_default())
            }
            _ => authority.to_owned(),
        };
        format!("{scheme}://{authority}{}", mask_parameters(path))
    }
}

fn mask_parameters(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let mask = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=***"),
        _ => parameter.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(mask).collect();
    format!("{path}?{}", query.join("&"))
}

impl FromStr for DatabaseUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let Ok(url) = text.parse::<DatabaseUrl>();
        format!("{url}|{url:?}")
    }

    #[test]
    fn no_form_of_a_password_is_ever_shown() {
        for url in [
            "postgres://me:hunter2@db:5432/remains",
            "postgres://me:hunter2@db/remains?sslmode=require",
            "postgres://me:a/hunter2@db/remains",
            "postgres://me:a@hunter2@db/remains",
            "postgres://db/remains?user=me&password=hunter2",
            "postgres://me:hunter2?x@db/remains",
            "host=db password=hunter2",
        ] {
            assert!(!shown(url).contains("hunter2"), "{}", shown(url));
        }
        assert!(shown("postgres://me:hunter2@db:5432/remains").contains("postgres://me:***@db:5432/remains"));
        assert!(shown("postgres://db/remains?sslmode=require").contains("postgres://db/remains?sslmode=require"));
    }
}
