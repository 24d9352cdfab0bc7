//! What an address says about TLS, and OpenSSL set up by it. The servers' own words for it are known
//! to the adapters alone. Never turns a check off that was not turned off by name, and never puts a
//! parameter's value into an error.
#![warn(missing_docs)]

#[cfg(feature = "tls")]
mod openssl;

use std::error::Error;
use std::path::PathBuf;

/// Whether this build can do TLS and SCRAM: the cargo feature `tls`.
pub const BUILT_IN: bool = cfg!(feature = "tls");

/// What to tell who asks for it in a build without.
pub const ABSENT: &str = "this build has no TLS and no SCRAM; build with --features tls";

/// How a connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// What must hold of the server.
    pub check: Check,
    /// PEM file of the authorities that may have signed the server's certificate; without one, those
    /// that the system trusts.
    pub authorities: Option<PathBuf>,
    /// PEM files of our own certificate, its chain behind it, and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What must hold of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Signed by an authority that we trust, and made out for the host of the address.
    Host,
    /// Signed by an authority that we trust.
    Authority,
    /// Nothing: whoever answers in the server's place can read along.
    Nothing,
}

/// Our own certificate and key, which go together; `names` are the address's words for them.
pub fn identity(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    names: [&str; 2],
) -> Result<Option<(PathBuf, PathBuf)>, String> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        _ => Err(format!("{} and {} go together", names[0], names[1])),
    }
}

/// Whether TLS itself failed (a certificate, a protocol), which no waiting mends; not a connection that
/// broke meanwhile. Always `false` in a build without.
pub fn refused(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "tls")]
    return openssl::refused(error);
    #[cfg(not(feature = "tls"))]
    {
        let _ = error;
        false
    }
}

/// Whether it is an error of TLS, whatever the cause. Always `false` in a build without.
pub fn is_own(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "tls")]
    return openssl::is_own(error);
    #[cfg(not(feature = "tls"))]
    {
        let _ = error;
        false
    }
}

/// The parameters behind an address's `?`, percent-decoded, in their order. An error names the
/// parameter, never its value.
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // A piece of a value that holds a bare & must not be shown.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !pair.contains('=') || name.is_empty() || !name.chars().all(plain) {
            return Err("a parameter is not name=value; in a value write & as %26".to_owned());
        }
        let value = decoded(value)
            .ok_or_else(|| format!("{name}: not percent-encoded text; write % as %25"))?;
        if found.iter().any(|(other, _)| other == name) {
            return Err(format!("{name} is given twice"));
        }
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

/// `None` for a % without two hexadecimal digits, and for bytes that are not UTF-8 or control
/// characters.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let value = |digit: u8| char::from(digit).to_digit(16);
        bytes.push(u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parameters("sasl.password=a%26b%25c%3dd+e&&ssl.ca.location=/ca.pem"),
            Ok(vec![pair("sasl.password", "a&b%c=d+e"), pair("ssl.ca.location", "/ca.pem")])
        );
        assert_eq!(parameters("x=1=2%C3%A4"), Ok(vec![pair("x", "1=2ä")]));
        assert_eq!(parameters(""), Ok(vec![]));
    }

    #[test]
    fn errors_never_show_a_value() {
        for query in [
            "sasl.password=geheim%2",
            "sasl.password=geheim%zz",
            "sasl.password=geheim%+1",
            "sasl.password=geheim%ff",
            "sasl.password=geheim%00",
            "sasl.password=x&geheim",
            "sasl.password=x&ge!heim=1",
            "sasl.password=geheim&sasl.password=geheim",
            "=geheim",
        ] {
            let error = parameters(query).expect_err(query);
            assert!(!error.contains("heim"), "{error}");
        }
    }
}
