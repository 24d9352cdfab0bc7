//! Who a server is, by the first thing that it says on a connection: the client library keeps that to itself.
//! Never logs in.

use std::io::{Read, Write};
use std::time::Duration;

use lapin::tcp::{AMQPUriTcpExt, HandshakeError};
use lapin::types::AMQPValue;
use lapin::types::parsing::parse_field_table;
use lapin::uri::{AMQPScheme, AMQPUri};
use ports::{Fault, Outcome};

use crate::address::Address;

/// What a client of AMQP 0-9-1 begins with.
const HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// A frame before its payload: type, channel, size.
const FRAME_HEAD: usize = 7;
/// A method frame.
const METHOD: u8 = 1;
/// `connection.start`, and the protocol's version behind it.
const START: [u8; 6] = [0, 10, 0, 10, 0, 9];
/// Most bytes of a frame before a size is agreed on.
const FRAME_MAX: usize = 65_536;

/// A server, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `RabbitMQ`.
    pub product: String,
    /// Such as `3.10.8`.
    pub version: String,
}

impl Server {
    /// Asks the server at `url`, which may take as long as `limit` for each step.
    pub async fn ask(url: &str, limit: Duration) -> Outcome<Server> {
        let mut address = Address::parse(url)?;
        address.uri.query.connection_timeout =
            Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let asked = tokio::task::spawn_blocking(move || greeting(&address, limit));
        let payload = asked.await.map_err(|_| Fault::retry("the question was cut short"))?;
        let payload = payload.map_err(|error| Fault::retry(error.to_string()))?;
        read(&payload)
            .ok_or_else(|| Fault::refused("what answers there is no server of AMQP 0-9-1"))
    }

    /// Its version's first two numbers; `None` where it has others.
    pub fn release(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    }
}

/// The payload of the first frame; empty where it is none.
fn greeting(address: &Address, limit: Duration) -> std::io::Result<Vec<u8>> {
    let broken = |error: HandshakeError| std::io::Error::other(error.to_string());
    // Without TLS first: its handshake shall keep to the limit.
    let tcp = AMQPUri { scheme: AMQPScheme::AMQP, ..address.uri.clone() };
    let mut stream = tcp.connect().map_err(broken)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    #[cfg(feature = "tls")]
    if let Some(connector) = &address.connector {
        stream = stream.into_openssl(connector, &address.uri.authority.host).map_err(broken)?;
    }
    stream.write_all(HEADER)?;
    stream.flush()?;
    let mut head = [0; FRAME_HEAD];
    stream.read_exact(&mut head)?;
    let [kind, _, _, size @ ..] = head;
    let size = u32::from_be_bytes(size) as usize;
    if kind != METHOD || size > FRAME_MAX {
        return Ok(Vec::new());
    }
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

fn read(payload: &[u8]) -> Option<Server> {
    let (_, properties) = parse_field_table(payload.strip_prefix(&START)?).ok()?;
    let text = |name: &str| match properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    Some(Server { product: text("product")?, version: text("version")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_introduces_itself() {
        let mut table = Vec::new();
        for (name, value) in [("product", "RabbitMQ"), ("version", "3.10.8")] {
            table.push(name.len() as u8);
            table.extend(name.bytes());
            table.push(b'S');
            table.extend((value.len() as u32).to_be_bytes());
            table.extend(value.bytes());
        }
        let mut payload = START.to_vec();
        payload.extend((table.len() as u32).to_be_bytes());
        payload.extend(table);
        payload.extend(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
        let server = read(&payload).unwrap();
        assert_eq!((&*server.product, server.release()), ("RabbitMQ", Some((3, 10))));
        assert_eq!(read(&payload[..20]), None);
        assert_eq!(read(&[]), None);
    }
}
