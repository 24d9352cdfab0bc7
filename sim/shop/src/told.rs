//! What must hold of answers: changes that were accepted are published, conditions were true, books
//! balance. Pure functions over facts, as those of `invariants`.

use std::collections::{BTreeMap, BTreeSet};

use contract::{Event, Profile};
use orders::rules::Saga;
use serde_json::Value;

use crate::facts::Facts;
use crate::invariants::{ever_held, found};
use crate::workload::{CATEGORY, WALK_INS_CART};

type Bad = Vec<(String, String)>;

/// A product's content: name, category and price.
type Content<'a> = (&'a str, &'a str, Option<i64>);

/// A change of a product that was answered 200 or 201 is published, under the version that the answer
/// says; one that was for a certain version follows that one; and one that came too late is refused.
pub fn changes_are_kept(facts: &Facts) -> Bad {
    let mut published: BTreeMap<(&str, Option<u64>), Content> = BTreeMap::new();
    let mut of_product: Vec<(&str, Content)> = Vec::new();
    for said in &facts.said {
        let Event::ProductUpserted(event) = &said.event else { continue };
        let content = (event.name.as_str(), event.category_id.as_str(), event.price);
        published.insert((&said.key, event.product_version), content);
        of_product.push((&said.key, content));
    }
    let versioned = facts.workload.profile() == Profile::Default;
    let is_said = |product: &str, version: Option<u64>, content: Content| match versioned {
        true => published.get(&(product, version)) == Some(&content),
        false => of_product.contains(&(product, content)),
    };
    let mut bad = Vec::new();
    for told in &facts.told.changes {
        let change = &told.change;
        let product = change.product.as_str();
        let category = change.category.as_deref().unwrap_or(CATEGORY);
        let content = (product, category, change.price);
        let version = |body: &Value| body["productVersion"].as_u64();
        let wrong = match (&told.answer, told.seen) {
            (_, None) if change.looks => Some("was not told its version".to_owned()),
            // The setup put it up.
            (answer, _) if change.creates => {
                let refused = answer.as_ref().is_some_and(|(status, _)| *status == 412);
                (!refused).then(|| format!("was to overwrite nothing, and was answered {answer:?}"))
            }
            (Some((200 | 201, body)), seen) => {
                let follows = seen.is_none_or(|seen| {
                    version(body).is_some_and(|it| it == seen || it == seen + 1)
                });
                match (is_said(product, version(body), content), follows) {
                    (false, _) => Some(format!("is not published under {:?}", version(body))),
                    (true, false) => Some(format!("became {:?}", version(body))),
                    (true, true) => None,
                }
            }
            (Some((412, _)), Some(seen)) => {
                let now = facts.products.get(product).map(|product| product.product_version);
                (now == Some(seen)).then(|| "was refused, and nobody was faster".to_owned())
            }
            (answer, _) => Some(format!("was answered {answer:?}")),
        };
        let reused = told.reused.filter(|status| *status != Some(422));
        let wrong = wrong.or_else(|| {
            reused
                .map(|status| format!("for another version under its key was answered {status:?}"))
        });
        bad.extend(wrong.map(|wrong| {
            found(product, format!("{content:?}, meant for version {:?}, {wrong}", told.seen))
        }));
    }
    for (list, answer) in &facts.told.price_lists {
        let answers = answer.as_ref().and_then(|(_, body)| body["lines"].as_array());
        let answers = answers.map_or(&[][..], Vec::as_slice);
        if answers.len() != list.lines.len() {
            bad.push(found("", format!("{list:?} was answered {answer:?}")));
        }
        for ((product, price), answer) in list.lines.iter().zip(answers) {
            let content = (product.as_str(), CATEGORY, Some(*price));
            let version = answer["result"]["productVersion"].as_u64();
            if !is_said(product, version, content) {
                bad.push(found(product, format!("{price} of {} was answered {answer}", list.name)));
            }
        }
    }
    bad
}

/// Whoever wrote pieces off was told books that balance, and is refused only what did not fit beside all
/// that was ever held.
pub fn books_are_told(facts: &Facts) -> Bad {
    let held = ever_held(facts);
    let mut bad = Vec::new();
    for told in &facts.told.write_offs {
        let product = told.write_off.product.as_str();
        let wrong = match &told.answer {
            Some((200, books)) => {
                let of = |name: &str| books[name].as_i64().filter(|pieces| *pieces >= 0);
                let parts = ["available", "reserved", "committed"].map(of);
                let sum = parts.into_iter().try_fold(0, |sum, part| Some(sum + part?));
                (sum.is_none() || sum != of("onHand")).then(|| format!("books are {books}"))
            }
            Some((409, _)) => {
                let held = held.get(product).copied().unwrap_or(0);
                let left = facts.adjusted.get(product).copied().unwrap_or(0) - held;
                (left >= told.write_off.pieces).then(|| format!("refused, and {left} were left"))
            }
            answer => Some(format!("answered {answer:?}")),
        };
        let differs = || "answered otherwise when it was sent again".to_owned();
        let wrong = wrong.or_else(|| (told.repeated == Some(false)).then(differs));
        let reused = told.reused.filter(|status| *status != Some(422));
        let wrong = wrong.or_else(|| {
            reused.map(|status| format!("more pieces under its key were answered {status:?}"))
        });
        bad.extend(wrong.map(|wrong| found(product, format!("{:?}: {wrong}", told.write_off))));
    }
    bad
}

/// Whether a walk-in placed it.
pub(crate) fn is_walk_ins(saga: &Saga) -> bool {
    let cart = saga.placed.as_ref().and_then(|placed| placed.cart_id.as_ref());
    cart.is_some_and(|cart| cart.as_str() == WALK_INS_CART)
}

/// Without a key nothing is a repeat: each request makes an order of its own.
pub(crate) fn walk_ins_are_kept(facts: &Facts) -> Bad {
    let made: BTreeSet<&str> = facts
        .sagas
        .iter()
        .filter(|(_, saga)| is_walk_ins(saga))
        .map(|(id, _)| id.as_str())
        .collect();
    let told = &facts.told.walk_ins;
    let ids: BTreeSet<&str> = told.iter().filter_map(|it| it.order_id.as_deref()).collect();
    let lost: usize = told.iter().map(|it| it.lost).sum();
    let mut bad = Vec::new();
    if ids.len() != told.len() || !ids.is_subset(&made) || made.len() > ids.len() + lost {
        let text = format!("orders without a key: told {told:?}, made {made:?}");
        bad.push(found("", text));
    }
    bad
}

/// What nobody placed is not there, whoever asks.
pub fn strays_find_nothing(facts: &Facts) -> Bad {
    let answered = facts.told.strays.iter().filter(|(_, status)| *status != Some(404));
    answered.map(|(path, status)| found("", format!("{path} was answered {status:?}"))).collect()
}
