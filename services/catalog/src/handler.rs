//! Catalog as the chassis calls it: the locked product, its next version, its event. Never reads an
//! event of anybody.

use std::collections::BTreeSet;

use chassis::http::Problem;
use chassis::{Context, Decided, Emit, Handler, Input, Read, Reason, Reply, Touched};
use chrono::{DateTime, Utc};
use contract::{Contract, Event, ProductId, ProductUpserted, Profile, Streams};
use envelope::{CorrelationId, Envelope, Seal};
use ports::{Channel, Key, Table};
use serde_json::json;

use crate::rows::TABLES;
use crate::rules::{Fact, Outcome, Product, event_id, put};

/// The handler of Catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Which versions it reads and writes.
    pub contract: Contract,
    /// Names of the topics.
    pub streams: Streams,
    /// With or without the additions.
    pub profile: Profile,
}

impl Handler for Catalog {
    type Fact = Fact;

    fn tables(&self) -> &'static [&'static Table] {
        &TABLES
    }

    fn read(&self, _envelope: &Envelope) -> Result<Read<Fact>, Reason> {
        Ok(Read::Skip("not_consumed"))
    }

    fn keys(
        &self,
        _table: &'static Table,
        batch: &[Input<Fact>],
        _rows: &Touched,
    ) -> Option<BTreeSet<Key>> {
        let keys = batch.iter().filter_map(|input| match &input.fact {
            Fact::Put { product_id, .. } => Some(product_id.key()),
            Fact::Import => None,
        });
        Some(keys.collect())
    }

    fn decide(
        &self,
        input: &Input<Fact>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        let (product_id, content, condition) = match &input.fact {
            Fact::Put { product_id, content, condition } => (product_id, content, condition),
            Fact::Import => {
                let reply = Some(Reply::kept(200, json!({})));
                return Ok(Decided { emits: Vec::new(), reply });
            }
        };
        let known: Option<Product> = rows.get(product_id.as_str());
        let version = known.as_ref().map(|product| product.product_version);
        if !condition.holds(version) {
            // In passing: whoever looks again may come with the same key.
            let reply = Some(Reply { kept: false, ..unmet(product_id, version) });
            return Ok(Decided { emits: Vec::new(), reply });
        }
        let (status, product, changed) = match put(known, product_id, content, now) {
            Outcome::Created(product) => (201, product, true),
            Outcome::Updated(product) => (200, product, true),
            Outcome::Same(product) => (200, product, false),
        };
        let mut emits = Vec::new();
        if changed {
            rows.put(&product_id.key(), &product);
            emits.push(self.upserted(&product, &input.context, now));
        }
        Ok(Decided { emits, reply: Some(Reply::kept(status, json!(product))) })
    }
}

/// 412, with the present version, from which its entity tag follows.
pub(crate) fn unmet(product_id: &ProductId, version: Option<u64>) -> Reply {
    let now = version.map_or("not there".to_owned(), |version| format!("at version {version}"));
    let detail = format!("{product_id} is {now}; look at it again, then decide");
    let title = "The product is at another version";
    let mut reply = Problem::new(412, "precondition-failed", title, detail).into_reply();
    reply.body["productVersion"] = json!(version);
    reply
}

impl Catalog {
    fn upserted(&self, product: &Product, context: &Context, now: DateTime<Utc>) -> Emit {
        let event_id = event_id(&product.product_id, product.product_version);
        let own = || CorrelationId::parse(event_id.as_str()).expect("an id is an id");
        let correlation_id = context.correlation.clone().unwrap_or_else(own);
        let (causation_id, product_version) = match self.profile {
            Profile::Default => (context.cause.clone(), Some(product.product_version)),
            Profile::Catalog => (None, None),
        };
        let event = Event::ProductUpserted(ProductUpserted {
            product_id: product.product_id.clone(),
            name: product.content.name.clone(),
            category_id: product.content.category_id.clone(),
            price: product.content.price,
            updated_at: product.updated_at,
            product_version,
        });
        let seal = Seal { event_id, occurred_at: now, correlation_id, causation_id };
        Emit {
            channel: Channel::Topic,
            to: self.streams.name(event.stream()),
            key: event.key(),
            envelope: self.contract.seal(&event, seal),
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::CategoryId;
    use envelope::EventId;
    use ports::Rows;
    use serde_json::Value;

    use super::*;
    use crate::rows::PRODUCTS;
    use crate::rules::{Condition, Content, Versions};

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_123).unwrap()
    }

    fn input(name: &str, price: Option<i64>, context: Context) -> Input<Fact> {
        let category_id = CategoryId::parse("drinks").unwrap();
        let content = Content { name: name.to_owned(), category_id, price };
        let (product_id, condition) = (ProductId::parse("tea").unwrap(), Condition::default());
        let fact = Fact::Put { product_id, content, condition };
        Input { id: Some("i".into()), fingerprint: String::new(), context, fact }
    }

    fn told(profile: Profile, batch: &[Input<Fact>]) -> Vec<Decided> {
        let catalog =
            Catalog { contract: Contract::default(), streams: Streams::prefixed("t."), profile };
        let mut rows = Touched::new();
        let keys = catalog.keys(&PRODUCTS, batch, &rows).unwrap();
        rows.add(
            &PRODUCTS,
            keys.into_iter().map(|key| (key, Default::default())).collect::<Rows>(),
        );
        batch.iter().map(|input| catalog.decide(input, &mut rows, now()).unwrap()).collect()
    }

    fn payload(emit: &Emit) -> Value {
        serde_json::from_str(emit.envelope.payload.get()).unwrap()
    }

    #[test]
    fn each_change_is_published_once_under_its_version() {
        let id = |text| EventId::parse(text).unwrap();
        let context = Context {
            cause: Some(id("r-1")),
            correlation: Some(CorrelationId::parse("r-1").unwrap()),
            ..Context::default()
        };
        let puts = [
            input("Tea", Some(350), context),
            input("Tea", Some(350), Context::default()),
            input("Tea", None, Context::default()),
        ];
        let decided = told(Profile::Default, &puts);
        let [first] = decided[0].emits.as_slice() else { panic!("{decided:?}") };
        assert_eq!((&*first.to, &*first.key), ("t.catalog.events", "tea"));
        let product = ProductId::parse("tea").unwrap();
        assert_eq!(first.envelope.event_id, event_id(&product, 1));
        assert_eq!(first.envelope.correlation_id.as_str(), "r-1");
        assert_eq!(first.envelope.causation_id, Some(id("r-1")));
        let said = json!({ "productId": "tea", "name": "Tea", "categoryId": "drinks", "price": 350,
            "updatedAt": "2023-11-14T22:13:20.123Z", "productVersion": 1 });
        assert_eq!(payload(first), said);
        assert!(decided[1].emits.is_empty());
        let [third] = decided[2].emits.as_slice() else { panic!("{decided:?}") };
        let own = event_id(&product, 2);
        assert_eq!(third.envelope.correlation_id.as_str(), own.as_str());
        assert_eq!(payload(third).get("price"), None);
        assert_eq!(payload(third)["productVersion"], 2);
        let replies: Vec<_> = decided.iter().map(|d| d.reply.as_ref().unwrap()).collect();
        assert_eq!(replies.iter().map(|r| r.status).collect::<Vec<_>>(), [201, 200, 200]);
        assert_eq!((&replies[0].body, &replies[1].body), (&said, &said));
    }

    #[test]
    fn a_condition_is_decided_on_the_locked_row() {
        let with = |name, condition: Condition| {
            let mut input = input(name, None, Context::default());
            let Fact::Put { condition: slot, .. } = &mut input.fact else { panic!("a put") };
            *slot = condition;
            input
        };
        let at = |version| Condition {
            only: Some(Versions::These([version].into())),
            ..Condition::default()
        };
        let create = Condition { never: Some(Versions::Any), ..Condition::default() };
        // One batch: each sees what the ones before it wrote.
        let puts = [
            with("a", at(1)),
            with("b", create.clone()),
            with("c", create),
            with("d", at(1)),
            with("e", at(1)),
        ];
        let decided = told(Profile::Default, &puts);
        let replies: Vec<_> = decided.iter().map(|d| d.reply.as_ref().unwrap()).collect();
        assert_eq!(replies.iter().map(|r| r.status).collect::<Vec<_>>(), [412, 201, 412, 200, 412]);
        assert_eq!(
            replies.iter().map(|r| r.kept).collect::<Vec<_>>(),
            [false, true, false, true, false]
        );
        assert_eq!(replies[0].body["productVersion"], Value::Null);
        assert_eq!(replies[4].body["productVersion"], 2);
        assert_eq!(decided.iter().map(|d| d.emits.len()).sum::<usize>(), 2);
    }

    #[test]
    fn profile_catalog_leaves_version_and_cause_out() {
        let cause = EventId::parse("r-1").ok();
        let context = Context { cause, ..Context::default() };
        let decided = told(Profile::Catalog, &[input("Tea", None, context)]);
        let emit = &decided[0].emits[0];
        assert_eq!(emit.envelope.causation_id, None);
        let said = json!({ "productId": "tea", "name": "Tea", "categoryId": "drinks",
            "updatedAt": "2023-11-14T22:13:20.123Z" });
        assert_eq!(payload(emit), said);
    }
}
