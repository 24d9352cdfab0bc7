//! Fresh ids. Never asks the machine for randomness: only the runtime.

use envelope::EventId;
use ports::Runtime;

/// A uuid v7 of this node's clock and 74 bits that the runtime chooses for `site` and `instance`: new
/// ids stand together in an index.
pub fn fresh_id(runtime: &dyn Runtime, site: &'static str, instance: &str) -> EventId {
    let random = [(); 2].map(|()| runtime.choose(site, instance, u64::MAX).to_be_bytes());
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&random[0]);
    bytes[8..].copy_from_slice(&random[1][6..]);
    let ms = u64::try_from(runtime.now().timestamp_millis()).unwrap_or(0);
    let id = uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid();
    EventId::parse(id.to_string()).expect("a uuid is an id")
}

#[cfg(test)]
mod tests {
    use model::virtual_time::VirtualTime;

    use super::*;

    #[test]
    fn ids_differ_and_are_uuids_of_version_7() {
        let time = VirtualTime::default();
        let [first, second] = [(); 2].map(|()| fresh_id(&time, "orders.order_id", "orders-0"));
        assert_ne!(first, second);
        let version =
            |id: &EventId| uuid::Uuid::parse_str(id.as_str()).map(|id| id.get_version_num());
        assert_eq!([version(&first), version(&second)], [Ok(7), Ok(7)]);
    }
}
