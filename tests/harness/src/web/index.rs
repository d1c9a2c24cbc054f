//! An index of documents that is written in bulk, as Elasticsearch and OpenSearch are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde_json::{Value as Json, json};

use super::{Answer, Asked, Web};

/// What is known under an id: its version, and the document unless it is deleted.
type Held = (i64, Option<Json>);

#[derive(Default)]
struct State {
    documents: BTreeMap<(String, String), Held>,
    /// What the next bulk requests are answered with; the other word says whether they count all the same.
    next: VecDeque<(Answer, bool)>,
    token: Option<String>,
    /// The keys of all bulk requests that counted, in their order.
    keys: Vec<String>,
}

/// An index: `POST /_bulk` with versions of the kind `external_gte`, each document's member `text` being no `poison`.
pub struct Index {
    web: Web,
    state: Arc<Mutex<State>>,
}

impl Index {
    /// Starts an empty one; with a token, if it is to be asked for one.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(token: Option<&str>) -> Result<Self> {
        let state = Arc::new(Mutex::new(State { token: token.map(str::to_owned), ..State::default() }));
        let shared = Arc::clone(&state);
        let web = Web::start(move |asked| lock(&shared).answer(asked))?;
        Ok(Self { web, state })
    }

    /// The documents of an index that are not deleted, by id.
    #[must_use]
    pub fn documents(&self, index: &str) -> BTreeMap<String, Json> {
        let state = lock(&self.state);
        let of_index = state.documents.iter().filter(|((its, _), _)| its == index);
        of_index.filter_map(|((_, id), (_, document))| Some((id.clone(), document.clone()?))).collect()
    }

    /// The idempotency keys of all bulk requests that counted, in their order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        lock(&self.state).keys.clone()
    }

    /// What the next bulk requests are answered with; whether they count all the same stands beside it.
    pub fn answer_next(&self, answers: impl IntoIterator<Item = (Answer, bool)>) {
        lock(&self.state).next.extend(answers);
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.web.address()
    }

    /// Requests so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.web.asked()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let expected = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if expected.is_some() && asked.header("authorization") != expected.as_deref() {
            return Answer::status(401);
        }
        if asked.target != "/_bulk" {
            return Answer::json(&json!({ "tagline": "You Know, for Tests" }));
        }
        let instead = self.next.pop_front();
        if let Some((answer, false)) = instead {
            return answer;
        }
        let Some(items) = self.take(&asked.body) else { return Answer::status(400) };
        self.keys.push(asked.header("idempotency-key").unwrap_or_default().to_owned());
        match instead {
            Some((answer, _)) => answer,
            None => Answer::json(&json!({ "errors": items.iter().any(is_bad), "items": items })),
        }
    }

    /// What became of each document of a request; `None` where it cannot be read.
    fn take(&mut self, body: &[u8]) -> Option<Vec<Json>> {
        let mut lines = std::str::from_utf8(body).ok()?.lines();
        let mut items = Vec::new();
        while let Some(line) = lines.next() {
            let head: Json = serde_json::from_str(line).ok()?;
            let (action, head) = head.as_object()?.iter().next()?;
            let document = match action.as_str() {
                "index" => Some(serde_json::from_str(lines.next()?).ok()?),
                _ => None,
            };
            let status = self.put(head, document)?;
            items.push(json!({ action.clone(): { "status": status, "error": is_error(status) } }));
        }
        Some(items)
    }

    fn put(&mut self, head: &Json, document: Option<Json>) -> Option<u16> {
        if head["version_type"] != "external_gte" {
            return None;
        }
        let key = (head["_index"].as_str()?.to_owned(), head["_id"].as_str()?.to_owned());
        let version = head["version"].as_i64()?;
        if document.as_ref().is_some_and(|it| it["text"] == "poison") {
            return Some(400);
        }
        let before = self.documents.get(&key).map(|(version, _)| *version);
        if before.is_some_and(|before| before > version) {
            return Some(409);
        }
        let is_gone = document.is_none() && before.is_none();
        self.documents.insert(key, (version, document));
        Some(if is_gone { 404 } else { 200 })
    }
}

fn is_error(status: u16) -> Json {
    match status {
        400 => json!({ "type": "document_parsing_exception", "reason": "poison is none" }),
        409 => json!({ "type": "version_conflict_engine_exception", "reason": "there is a newer one" }),
        _ => Json::Null,
    }
}

fn is_bad(item: &Json) -> bool {
    item.as_object().is_some_and(|it| it.values().any(|it| !it["error"].is_null()))
}
