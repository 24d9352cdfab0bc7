//! Where a server is, and how to get in: PostgreSQL's URL with the parameters that libpq has for TLS.
//! Never falls back to plain text, and never puts the address into an error.

use std::fmt;

use ports::{Fault, Outcome};
use tls::{Check, Tls};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// Where a server is, and how to get in.
#[derive(Clone)]
pub struct Address {
    pub(crate) config: Config,
    #[cfg(feature = "tls")]
    pub(crate) connector: Option<postgres_openssl::MakeTlsConnector>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").finish_non_exhaustive()
    }
}

impl Address {
    /// From what [`crate::PostgresStore::connect`] takes; connects to nothing. `Refused` where it is no
    /// such address, where a file that it names cannot be read, and for TLS in a build without.
    pub fn parse(url: &str) -> Outcome<Address> {
        let (rest, tls) = protection(url)?;
        // Not the error's text: it may hold what stands in the address.
        let mut config: Config =
            rest.parse().map_err(|_| Fault::refused("not an address of PostgreSQL"))?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(Fault::refused("TLS wants an address in the form postgres://…"));
        }
        // Said in both cases: the driver's default would take what the server offers.
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        #[cfg(not(feature = "tls"))]
        return match tls {
            Some(_) => Err(Fault::refused(tls::ABSENT)),
            None => Ok(Address { config }),
        };
        #[cfg(feature = "tls")]
        {
            let connector = tls.map(|tls| connector(&tls)).transpose()?;
            Ok(Address { config, connector })
        }
    }
}

#[cfg(feature = "tls")]
fn connector(tls: &Tls) -> Outcome<postgres_openssl::MakeTlsConnector> {
    let connector = tls.connector().map_err(Fault::refused)?;
    let mut connector = postgres_openssl::MakeTlsConnector::new(connector);
    let host = tls.host_is_checked();
    connector.set_callback(move |connection, _| {
        connection.set_verify_hostname(host);
        Ok(())
    });
    Ok(connector)
}

/// The address without libpq's words for TLS, and what they say; `None` for plain text.
fn protection(url: &str) -> Outcome<(String, Option<Tls>)> {
    // The driver too takes the first @ for the end of user and password.
    let from = url.find('@').unwrap_or(0);
    let Some(at) = url[from..].find('?').map(|at| from + at) else {
        return Ok((url.to_owned(), None));
    };
    let is_ours =
        |pair: &&str| matches!(pair.split('=').next(), Some(name) if OURS.contains(&name));
    let (ours, others): (Vec<&str>, Vec<&str>) = url[at + 1..].split('&').partition(is_ours);
    let rest = match others.is_empty() {
        true => url[..at].to_owned(),
        false => format!("{}?{}", &url[..at], others.join("&")),
    };
    let (mut mode, mut authorities, mut certificate, mut key) = (None, None, None, None);
    for (name, value) in tls::parameters(&ours.join("&")).map_err(Fault::refused)? {
        match name.as_str() {
            "sslmode" => mode = Some(value),
            "sslrootcert" => authorities = Some(value),
            "sslcert" => certificate = Some(value.into()),
            _ => key = Some(value.into()),
        }
    }
    let checks = match mode.as_deref() {
        Some("verify-full") => Some(Check::Host),
        Some("verify-ca") => Some(Check::Authority),
        // As libpq has it: with an authority's file, it must have signed.
        Some("require") if authorities.is_some() => Some(Check::Authority),
        Some("require") => Some(Check::Nothing),
        Some("disable") | None => None,
        Some("prefer" | "allow") => {
            return Err(Fault::refused(
                "sslmode=prefer and allow leave open whether there is TLS; \
                 use verify-full, verify-ca, require or disable",
            ));
        }
        Some(_) => {
            return Err(Fault::refused("sslmode is verify-full, verify-ca, require or disable"));
        }
    };
    let Some(check) = checks else {
        if authorities.is_some() || certificate.is_some() || key.is_some() {
            return Err(Fault::refused(
                "sslrootcert, sslcert and sslkey are of no effect without sslmode=verify-full, \
                 verify-ca or require",
            ));
        }
        return Ok((rest, None));
    };
    let identity =
        tls::identity(certificate, key, ["sslcert", "sslkey"]).map_err(Fault::refused)?;
    // libpq's word for what the system trusts.
    let authorities = authorities.filter(|file| file != "system").map(Into::into);
    Ok((rest, Some(Tls { check, authorities, identity })))
}

const OURS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        match Address::parse(url) {
            Err(Fault::Refused(text)) => text.to_string(),
            _ => panic!("{url}"),
        }
    }

    #[test]
    fn the_words_of_libpq_say_how_it_is_protected() {
        let found = |query: &str| {
            let (rest, tls) = protection(&format!("postgres://u:p@h/db{query}")).ok().unwrap();
            (rest.strip_prefix("postgres://u:p@h/db").unwrap().to_owned(), tls)
        };
        let tls = |check| Tls { check, authorities: None, identity: None };
        let with_ca = |check| Tls { authorities: Some("/c a.pem".into()), ..tls(check) };
        for (query, rest, expected) in [
            ("", "", None),
            ("?application_name=x", "?application_name=x", None),
            ("?sslmode=disable", "", None),
            ("?a=%20&sslmode=require&b=1", "?a=%20&b=1", Some(tls(Check::Nothing))),
            ("?sslmode=verify-full", "", Some(tls(Check::Host))),
            ("?sslmode=verify-full&sslrootcert=system", "", Some(tls(Check::Host))),
            ("?sslrootcert=/c%20a.pem&sslmode=verify-full", "", Some(with_ca(Check::Host))),
            ("?sslrootcert=/c%20a.pem&sslmode=verify-ca", "", Some(with_ca(Check::Authority))),
            ("?sslrootcert=/c%20a.pem&sslmode=require", "", Some(with_ca(Check::Authority))),
            (
                "?sslmode=verify-ca&sslcert=/c&sslkey=/k",
                "",
                Some(Tls { identity: Some(("/c".into(), "/k".into())), ..tls(Check::Authority) }),
            ),
        ] {
            assert_eq!(found(query), (rest.to_owned(), expected), "{query}");
        }
    }

    #[test]
    fn what_leaves_tls_open_is_refused_and_no_password_shown() {
        for (url, word) in [
            ("postgres://u:geheim@h/db?sslmode=prefer", "verify-full"),
            ("postgres://u:geheim@h/db?sslmode=allow", "verify-full"),
            ("postgres://u:geheim@h/db?sslmode=on", "sslmode is"),
            ("postgres://u:geheim@h/db?sslrootcert=/ca.pem", "no effect without sslmode"),
            ("postgres://u:geheim@h/db?sslmode=disable&sslrootcert=/ca", "no effect without"),
            ("postgres://u:geheim@h/db?sslmode=require&sslcert=/c", "sslkey"),
            ("postgres://u:ge?sslmode=x@h/db?sslmode=geheim", "sslmode is"),
            ("host=h password=geheim sslmode=require", "postgres://"),
            ("host=h password=geheim sslmode=verify-full", "not an address"),
            ("postgres://u:geheim@h/db?sslcrl=geheim", "not an address"),
        ] {
            let text = refusal(url);
            assert!(text.contains(word) && !text.contains("geheim"), "{url}: {text}");
        }
    }

    #[test]
    fn plain_text_is_said_and_tls_wants_the_feature() {
        for url in ["postgres://u@h/db", "host=h user=u", "host=h user=u sslmode=prefer"] {
            let mode = Address::parse(url).ok().map(|address| address.config.get_ssl_mode());
            assert_eq!(mode, Some(SslMode::Disable), "{url}");
        }
        let url = "postgres://u@h/db?sslmode=require";
        match tls::BUILT_IN {
            true => {
                let address = Address::parse(url).ok().unwrap();
                assert_eq!(address.config.get_ssl_mode(), SslMode::Require);
            }
            false => assert!(refusal(url).contains("--features tls")),
        }
    }
}
