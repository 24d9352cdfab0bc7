//! Headers as one blob, for stores and journals that keep them in one column. Never interprets one.

use bytes::Bytes;

use crate::Header;

/// For each header the lengths of name and value (4 bytes each, big endian), then both.
///
/// # Panics
/// Where a name or value has 4 GiB or more.
pub fn encode(headers: &[Header]) -> Vec<u8> {
    let mut blob = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            let length = u32::try_from(part.len()).expect("a header is smaller than 4 GiB");
            blob.extend(length.to_be_bytes());
        }
        blob.extend(name.as_bytes());
        blob.extend(value);
    }
    blob
}

/// The headers of a blob; `None` where it is damaged: not made by [`encode`].
pub fn decode(blob: &[u8]) -> Option<Vec<Header>> {
    let mut headers = Vec::new();
    let mut rest = blob;
    while !rest.is_empty() {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let (value, after) = after.split_first_chunk::<4>()?;
        let (name, after) = after.split_at_checked(u32::from_be_bytes(*name) as usize)?;
        let (value, after) = after.split_at_checked(u32::from_be_bytes(*value) as usize)?;
        headers.push((std::str::from_utf8(name).ok()?.into(), Bytes::copy_from_slice(value)));
        rest = after;
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_a_damaged_blob_is_found() {
        let headers: Vec<Header> = vec![
            ("traceparent".into(), Bytes::from_static(b"00-ab")),
            ("".into(), Bytes::new()),
            ("ß".into(), Bytes::from_static(&[0, 255])),
        ];
        let blob = encode(&headers);
        assert_eq!(decode(&blob), Some(headers.clone()));
        let whole = [0, 1, 2].map(|n| encode(&headers[..n]).len());
        for end in 0..blob.len() {
            let cut = decode(&blob[..end]);
            assert_eq!(cut.is_some(), whole.contains(&end), "cut after {end} bytes");
        }
        assert_eq!(decode(&[0, 0, 0, 1, 0, 0, 0, 0, 255]), None, "a name that is no text");
    }
}
