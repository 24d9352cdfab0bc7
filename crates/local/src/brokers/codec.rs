//! Headers as one blob: for each its name and value, with lengths before them. Never interprets one.

use bytes::Bytes;
use ports::Header;

/// The blob of these headers.
pub(super) fn encode(headers: &[Header]) -> Vec<u8> {
    let mut blob = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            blob.extend((part.len() as u32).to_le_bytes());
            blob.extend(part);
        }
    }
    blob
}

/// The headers of a blob; `None` if it was not made by [`encode`].
pub(super) fn decode(mut blob: &[u8]) -> Option<Vec<Header>> {
    let mut headers = Vec::new();
    while !blob.is_empty() {
        let name = std::str::from_utf8(part(&mut blob)?).ok()?.into();
        headers.push((name, Bytes::copy_from_slice(part(&mut blob)?)));
    }
    Some(headers)
}

fn part<'a>(blob: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *blob = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_and_a_cut_blob_does_not() {
        let headers = vec![
            ("a".into(), Bytes::from_static(b"1")),
            ("".into(), Bytes::new()),
            ("a".into(), Bytes::from_static(&[0, 255])),
        ];
        let blob = encode(&headers);
        assert_eq!(decode(&blob), Some(headers));
        assert_eq!(decode(&[]), Some(vec![]));
        assert!((1..blob.len()).filter(|cut| decode(&blob[..*cut]).is_some()).count() <= 2);
        assert_eq!(decode(&blob[..3]), None);
    }
}
