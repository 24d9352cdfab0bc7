//! Where a cluster is, and how to get in. Never lets a word for TLS or SASL stand without effect,
//! and never puts a value into an error: it may be a password.

use ports::{Fault, Outcome};

/// Where a cluster is, and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// As `bootstrap.servers` has it.
    pub(crate) brokers: String,
    /// Settings of the client library.
    pub(crate) access: Vec<(String, String)>,
}

/// The settings that an address may carry behind its `?`: who we are and how we get in.
const ACCESS: [&str; 5] =
    ["client.rack", "security.protocol", "enable.ssl.certificate.verification", "sasl.", "ssl."];

impl Address {
    /// From `kafka://host:port[,host:port][?setting=value[&…]]`, values percent-encoded. The settings
    /// are librdkafka's `client.rack`, `security.protocol`, `enable.ssl.certificate.verification`,
    /// `sasl.*` and `ssl.*`; others are refused.
    pub fn parse(url: &str) -> Outcome<Address> {
        let rest = url.strip_prefix("kafka://");
        let rest = rest.ok_or_else(|| Fault::refused("the address must start with kafka://"))?;
        let (brokers, query) = rest.split_once('?').unwrap_or((rest, ""));
        let brokers = brokers.trim_end_matches('/');
        for broker in brokers.split(',') {
            let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return Err(Fault::refused("the address must be kafka://host:port[,host:port]"));
            }
        }
        let access = tls::parameters(query).map_err(Fault::refused)?;
        for (name, _) in &access {
            let known = ACCESS.iter().any(|known| match known.ends_with('.') {
                true => name.starts_with(known),
                false => name == *known,
            });
            if !known {
                return Err(Fault::refused(format!("{name} is not a setting of an address")));
            }
        }
        check_access(&access)?;
        Ok(Address { brokers: brokers.to_owned(), access })
    }
}

/// The client library would pass over `ssl.*` and `sasl.*` where the protocol is another one.
fn check_access(access: &[(String, String)]) -> Outcome<()> {
    let value = |wanted: &str| {
        let found = access.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.to_ascii_lowercase())
    };
    let protocol = value("security.protocol").unwrap_or_else(|| "plaintext".to_owned());
    let (ssl, sasl) = match protocol.as_str() {
        "plaintext" => (false, false),
        "ssl" => (true, false),
        "sasl_plaintext" => (false, true),
        "sasl_ssl" => (true, true),
        _ => {
            return Err(Fault::refused(
                "security.protocol is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
            ));
        }
    };
    for (name, _) in access {
        if (name.starts_with("ssl.") || name.starts_with("enable.ssl.")) && !ssl {
            let text = format!("{name} is of no effect without security.protocol=SSL or SASL_SSL");
            return Err(Fault::refused(text));
        }
        if name.starts_with("sasl.") && !sasl {
            let text = format!(
                "{name} is of no effect without security.protocol=SASL_SSL or SASL_PLAINTEXT"
            );
            return Err(Fault::refused(text));
        }
    }
    let mechanism = value("sasl.mechanism").or_else(|| value("sasl.mechanisms"));
    let mechanism = mechanism.unwrap_or_default();
    if sasl && !matches!(mechanism.as_str(), "plain" | "scram-sha-256" | "scram-sha-512") {
        return Err(Fault::refused("sasl.mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"));
    }
    if (ssl || mechanism.starts_with("scram")) && !tls::BUILT_IN {
        return Err(Fault::refused(tls::ABSENT));
    }
    Ok(())
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
    fn addresses_name_brokers_and_access_only() {
        let address = Address::parse("kafka://a:9092,b:9093/?client.rack=x%2Fy").ok().unwrap();
        assert_eq!(address.brokers, "a:9092,b:9093");
        assert_eq!(address.access, [("client.rack".to_owned(), "x/y".to_owned())]);
        let bad = ["a:9092", "kafka://", "kafka://a", "kafka://:1", "kafka://a:1,b"];
        for url in bad {
            refusal(url);
        }
        assert!(refusal("kafka://a:1?acks=0").contains("acks"));
    }

    #[test]
    fn no_word_for_tls_or_sasl_is_passed_over() {
        for (query, word) in [
            ("ssl.ca.location=/ca.pem", "ssl.ca.location"),
            (
                "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&ssl.ca.location=/c",
                "ssl.ca.l",
            ),
            ("enable.ssl.certificate.verification=true", "enable.ssl"),
            ("security.protocol=SSL&sasl.password=geheim", "sasl.password"),
            ("security.protocol=TLS", "security.protocol"),
            ("security.protocol=SASL_SSL", "sasl.mechanism"),
            ("security.protocol=SASL_SSL&sasl.mechanism=GSSAPI", "sasl.mechanism"),
        ] {
            let text = refusal(&format!("kafka://a:1?{query}"));
            assert!(text.contains(word) && !text.contains("geheim"), "{query}: {text}");
        }
        let plain = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&sasl.password=a%26b";
        let address = Address::parse(&format!("kafka://a:1?{plain}")).ok().unwrap();
        assert!(address.access.contains(&("sasl.password".to_owned(), "a&b".to_owned())));
    }

    #[test]
    fn what_this_build_cannot_do_names_the_feature() {
        for query in [
            "security.protocol=SSL",
            "security.protocol=SASL_SSL&sasl.mechanism=PLAIN",
            "security.protocol=SASL_PLAINTEXT&sasl.mechanism=SCRAM-SHA-512",
        ] {
            let url = format!("kafka://a:1?{query}");
            match tls::BUILT_IN {
                true => assert!(Address::parse(&url).is_ok(), "{query}"),
                false => assert!(refusal(&url).contains("--features tls"), "{query}"),
            }
        }
    }
}
