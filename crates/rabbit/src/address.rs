//! Where a server is, and how to get in: RabbitMQ's URI and its query parameters. Never falls back
//! to plain text, and never puts the address into an error.

use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use ports::{Fault, Outcome};
use tls::{Check, Tls};

/// Parameters that are for the connection, not for TLS.
const TUNING: [&str; 5] =
    ["frame_max", "channel_max", "heartbeat", "connection_timeout", "auth_mechanism"];

/// Where a server is, and how to get in.
#[derive(Clone)]
pub struct Address {
    pub(crate) uri: AMQPUri,
    /// How an `amqps://` is protected.
    #[cfg(feature = "tls")]
    pub(crate) connector: Option<lapin::tcp::OpensslConnector>,
}

impl Address {
    /// From what [`crate::Rabbit::connect`] takes; connects to nothing. `Refused` where it is no such
    /// address, where a file that it names cannot be read, and for TLS in a build without.
    pub fn parse(url: &str) -> Outcome<Address> {
        // Not the error's text: it holds the address.
        let uri: AMQPUri =
            url.parse().map_err(|_| Fault::refused("not an address of RabbitMQ (amqp://…)"))?;
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let tls = protection(&uri.scheme, query)?;
        #[cfg(not(feature = "tls"))]
        return match tls {
            Some(_) => Err(Fault::refused(tls::ABSENT)),
            None => Ok(Address { uri }),
        };
        #[cfg(feature = "tls")]
        {
            let connector = tls.map(|tls| tls.connector()).transpose().map_err(Fault::refused)?;
            Ok(Address { uri, connector })
        }
    }

    /// Connects and logs in.
    pub(crate) async fn connect(
        &self,
        properties: ConnectionProperties,
    ) -> lapin::Result<Connection> {
        #[cfg(feature = "tls")]
        if let Some(connector) = self.connector.clone() {
            use lapin::tcp::AMQPUriTcpExt;
            let runtime = lapin::runtime::default_runtime()?;
            return Connection::connector(
                self.uri.clone(),
                runtime,
                async move |uri, runtime| {
                    let tcp = AMQPUri { scheme: AMQPScheme::AMQP, ..uri.clone() };
                    let tcp = tcp.connect_async(&runtime).await?;
                    Ok(tcp.into_openssl(&connector, &uri.authority.host).await?)
                },
                properties,
            )
            .await;
        }
        Connection::connect_uri(self.uri.clone(), properties).await
    }
}

/// How the connection is protected; `None` for `amqp://`.
fn protection(scheme: &AMQPScheme, query: &str) -> Outcome<Option<Tls>> {
    let (mut authorities, mut certificate, mut key) = (None, None, None);
    let mut check = Check::Host;
    for (name, value) in tls::parameters(query).map_err(Fault::refused)? {
        if TUNING.contains(&name.as_str()) {
            continue;
        }
        match name.as_str() {
            "cacertfile" => authorities = Some(value.into()),
            "certfile" => certificate = Some(value.into()),
            "keyfile" => key = Some(value.into()),
            "verify" => {
                check = match value.as_str() {
                    "verify_peer" => Check::Host,
                    "verify_none" => Check::Nothing,
                    _ => return Err(Fault::refused("verify is verify_peer or verify_none")),
                }
            }
            _ => return Err(Fault::refused(format!("{name} is not a parameter of an address"))),
        }
        if *scheme == AMQPScheme::AMQP {
            return Err(Fault::refused(format!("{name} is of no effect without amqps://")));
        }
    }
    let identity =
        tls::identity(certificate, key, ["certfile", "keyfile"]).map_err(Fault::refused)?;
    let tls = Tls { check, authorities, identity };
    Ok((*scheme == AMQPScheme::AMQPS).then_some(tls))
}

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
    fn parameters_say_how_amqps_is_protected() {
        let protect = |query: &str| protection(&AMQPScheme::AMQPS, query).ok().flatten().unwrap();
        let plain = Tls { check: Check::Host, authorities: None, identity: None };
        assert_eq!(protect("heartbeat=10"), plain);
        assert_eq!(
            protect("cacertfile=%2Fca.pem&certfile=/c.pem&keyfile=/k.pem&verify=verify_peer"),
            Tls {
                authorities: Some("/ca.pem".into()),
                identity: Some(("/c.pem".into(), "/k.pem".into())),
                ..plain.clone()
            }
        );
        assert_eq!(protect("verify=verify_none"), Tls { check: Check::Nothing, ..plain });
        assert!(matches!(protection(&AMQPScheme::AMQP, "heartbeat=10"), Ok(None)));
    }

    #[test]
    fn what_has_no_effect_is_refused_and_no_password_shown() {
        for (url, word) in [
            ("amqp://u:geheim@h/?cacertfile=/ca.pem", "amqps://"),
            ("amqp://u:geheim@h/?verify=verify_peer", "amqps://"),
            ("amqps://u:geheim@h/?verify=no", "verify_none"),
            ("amqps://u:geheim@h/?certfile=/c.pem", "keyfile"),
            ("amqps://u:geheim@h/?cacert=/c.pem", "cacert is not"),
            ("amqp://u:geheim@h:port/", "not an address"),
            ("geheim", "not an address"),
        ] {
            let text = refusal(url);
            assert!(text.contains(word) && !text.contains("geheim"), "{url}: {text}");
        }
    }

    #[test]
    fn amqps_wants_the_feature() {
        match tls::BUILT_IN {
            true => assert!(Address::parse("amqps://h/").is_ok()),
            false => assert!(refusal("amqps://h/").contains("--features tls")),
        }
    }
}
