//! OpenSSL by a [`Tls`].

use std::error::Error;
use std::io;
use std::path::Path;

use openssl::ssl::{ErrorCode, SslConnector, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::store::X509StoreBuilder;

use crate::{Check, Tls};

impl Tls {
    /// TLS 1.2 or later, with these authorities and this identity. Whether the host is checked is a
    /// matter of each connection: see [`Tls::host_is_checked`]. An error names the file.
    pub fn connector(&self) -> Result<SslConnector, String> {
        let broken = |error: openssl::error::ErrorStack| format!("OpenSSL: {error}");
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(broken)?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(broken)?;
        if let Some(path) = &self.authorities {
            // In place of the system's, not beside them.
            builder.set_cert_store(X509StoreBuilder::new().map_err(broken)?.build());
            let set = builder.set_ca_file(path);
            set.map_err(|_| no_pem(path, "certificates of authorities"))?;
        }
        if let Some((certificate, key)) = &self.identity {
            let set = builder.set_certificate_chain_file(certificate);
            set.map_err(|_| no_pem(certificate, "a certificate"))?;
            let set = builder.set_private_key_file(key, SslFiletype::PEM);
            set.map_err(|_| no_pem(key, "a private key without a passphrase"))?;
            let fits = builder.check_private_key();
            fits.map_err(|_| format!("{} is not the certificate's key", key.display()))?;
        }
        match self.check {
            Check::Nothing => {
                tracing::warn!(
                    "by its address a server's certificate is not checked: who answers in its place reads along"
                );
                builder.set_verify(SslVerifyMode::NONE);
            }
            // OpenSSL's error says no more than that the check failed.
            Check::Host | Check::Authority => {
                builder.set_verify_callback(SslVerifyMode::PEER, |passed, context| {
                    if !passed {
                        let reason = context.error().error_string();
                        tracing::warn!("the server's certificate is refused: {reason}");
                    }
                    passed
                })
            }
        }
        Ok(builder.build())
    }

    /// Whether each connection must check that the certificate is made out for its host.
    pub fn host_is_checked(&self) -> bool {
        self.check == Check::Host
    }
}

/// See [`crate::refused`].
pub(crate) fn refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<openssl::ssl::Error>() {
            return error.code() == ErrorCode::SSL;
        }
        // An IO error's source is that of what it holds.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    false
}

/// See [`crate::is_own`].
pub(crate) fn is_own(error: &(dyn Error + 'static)) -> bool {
    error.is::<openssl::ssl::Error>() || error.is::<openssl::error::ErrorStack>()
}

fn no_pem(path: &Path, what: &str) -> String {
    format!("{} cannot be read as {what} in PEM form", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_none_is_named() {
        let tls = |authorities: Option<&str>, key: Option<&str>| Tls {
            check: Check::Host,
            authorities: authorities.map(Into::into),
            identity: key.map(|key| (key.into(), key.into())),
        };
        assert!(tls(None, None).connector().is_ok());
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for (ca, key) in
            [(Some("/none.pem"), None), (Some(manifest), None), (None, Some("/none.pem"))]
        {
            let error = tls(ca, key).connector().map(|_| ()).expect_err("no such file");
            assert!(error.contains(ca.or(key).unwrap()), "{error}");
        }
    }
}
