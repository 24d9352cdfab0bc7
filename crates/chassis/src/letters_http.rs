//! Dead letters for operators: list, look at, redrive, discard. Never writes a row: what is asked goes
//! through the batch. Never answers or holds many letters whole: one may have megabytes.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ports::{Key, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::http::{InPath, Parameters, Problem, Strict, ok};
use crate::letters::{CLOSED_AT, DeadLetter, LetterText, Marker, OPEN_SINCE, SINCE};
use crate::page::{List, Page, list_page, read_row};
use crate::slot::{Ask, Slot};
use crate::{Commands, Handler};

/// Longest note of a discard, in bytes.
const NOTE_BYTES_MAX: usize = 1_024;

/// Letters that a list reads at a time.
const BITE: usize = 8;

/// Longest text of a stranger in a list, in characters: no key or type of the shop's is as long.
const SUMMARY_CHARS_MAX: usize = 256;

struct Office<H: Handler> {
    shared: Arc<Shared>,
    handler: Arc<H>,
    commands: Commands<H::Fact>,
}

impl<H: Handler> Office<H> {
    fn store(&self) -> &dyn Store {
        self.shared.ports.store.as_ref()
    }

    async fn settle(&self, id: &str, ask: Ask) -> Result<Response, Problem> {
        let letter = letter(self.store(), id).await?;
        let slot = Slot::letter(&*self.handler, &letter, ask);
        Ok(self.commands.settle(slot).await?.into_response())
    }
}

/// Adds the routes, for every service the same.
pub(crate) fn add<H: Handler>(
    to: Router,
    shared: Arc<Shared>,
    handler: Arc<H>,
    commands: Commands<H::Fact>,
) -> Router {
    let office = Arc::new(Office { shared, handler, commands });
    // One by one: a router of their own would be made for each service, only to be merged.
    to.route("/dead-letters", get(list::<H>).with_state(office.clone()))
        .route("/dead-letters/{id}", get(show::<H>).with_state(office.clone()))
        .route("/dead-letters/{id}/redrive", post(redrive::<H>).with_state(office.clone()))
        .route("/dead-letters/{id}/discard", post(discard::<H>).with_state(office.clone()))
        .route("/parked", get(parked::<H>).with_state(office))
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Which {
    #[default]
    Open,
    Closed,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LettersPage {
    #[serde(default)]
    state: Which,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Open letters, the oldest first; or closed ones, the last closed first.
async fn list<H: Handler>(
    State(office): State<Arc<Office<H>>>,
    Parameters(LettersPage { state, limit, cursor }): Parameters<LettersPage>,
) -> Result<Response, Problem> {
    let list = match state {
        Which::Open => List::all(OPEN_SINCE),
        Which::Closed => List::all(CLOSED_AT).descending(),
    };
    list_page(office.store(), list.in_bites(BITE), Page { limit, cursor }, summary).await
}

/// A letter without what may be large: headers and payloads are left out, a stranger's texts are cut.
fn summary(letter: &DeadLetter) -> Value {
    let mut shown = json!(letter);
    for large in ["headers", "payload", "edited"] {
        shown.as_object_mut().and_then(|fields| fields.remove(large));
    }
    for strange in ["key", "eventType"] {
        if let Value::String(text) = &mut shown[strange]
            && let Some((end, _)) = text.char_indices().nth(SUMMARY_CHARS_MAX)
        {
            text.truncate(end);
            text.push('…');
        }
    }
    shown
}

async fn show<H: Handler>(
    State(office): State<Arc<Office<H>>>,
    InPath(id): InPath<String>,
) -> Result<Response, Problem> {
    Ok(ok(json!(letter(office.store(), &id).await?)))
}

async fn letter(store: &dyn Store, id: &str) -> Result<DeadLetter, Problem> {
    let found = match id.contains('\0') {
        true => None,
        false => read_row(store, &Key::from(id)).await?,
    };
    found.ok_or_else(|| Problem::not_found("dead letter", id))
}

/// Body of a redrive: nothing, or another payload.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redrive {
    /// The whole envelope as it should have been: JSON, or text.
    payload: Option<Value>,
}

async fn redrive<H: Handler>(
    State(office): State<Arc<Office<H>>>,
    InPath(id): InPath<String>,
    body: Strict<Redrive>,
) -> Result<Response, Problem> {
    let edited = body.value.payload.map(|payload| match payload {
        Value::String(text) => text,
        json => json.to_string(),
    });
    let edited = edited.map(|text| LetterText::of(text.as_bytes()));
    office.settle(&id, Ask::Redrive { edited }).await
}

/// Body of a discard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    /// Why, for whoever asks later.
    note: String,
}

async fn discard<H: Handler>(
    State(office): State<Arc<Office<H>>>,
    InPath(id): InPath<String>,
    body: Strict<Discard>,
) -> Result<Response, Problem> {
    let note = body.value.note;
    if note.trim().is_empty() || note.len() > NOTE_BYTES_MAX || note.contains('\0') {
        let detail = format!("a discard has a note of 1 to {NOTE_BYTES_MAX} bytes that says why");
        return Err(Problem::invalid(detail));
    }
    office.settle(&id, Ask::Discard { note }).await
}

/// Keys with open letters, the oldest first.
async fn parked<H: Handler>(
    State(office): State<Arc<Office<H>>>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    list_page(office.store(), List::all(SINCE), page, |marker: &Marker| json!(marker)).await
}
