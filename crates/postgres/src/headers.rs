//! Headers of an outbox row as one value. Never fails on a damaged one: it stops there.

use bytes::Bytes;
use ports::Header;

/// For each header the lengths of name and value (4 bytes each, big endian), then both.
pub(crate) fn pack(headers: &[Header]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            packed.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        packed.extend(name.as_bytes());
        packed.extend(value);
    }
    packed
}

/// The opposite of [`pack`].
pub(crate) fn unpack(packed: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut rest = packed;
    while let Some((lengths, content)) = rest.split_at_checked(8) {
        let length = |from: usize| {
            lengths[from..from + 4].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let Some((name, content)) = content.split_at_checked(length(0)) else { break };
        let Some((value, content)) = content.split_at_checked(length(4)) else { break };
        let Ok(name) = std::str::from_utf8(name) else { break };
        headers.push((name.into(), Bytes::copy_from_slice(value)));
        rest = content;
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_packing_and_damage_does_not_panic() {
        let headers: Vec<Header> = vec![
            ("traceparent".into(), Bytes::from_static(b"00-ab")),
            ("".into(), Bytes::new()),
            ("ß".into(), Bytes::from_static(&[0, 255])),
        ];
        let packed = pack(&headers);
        assert_eq!(unpack(&packed), headers);
        for end in 0..packed.len() {
            assert!(unpack(&packed[..end]).len() < headers.len());
        }
    }
}
