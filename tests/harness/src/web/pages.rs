//! An API that answers in pages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde_json::{Value as Json, json};

use super::{Answer, Asked, Web};

#[derive(Default)]
struct State {
    items: Vec<Json>,
    /// What the next requests are answered with instead.
    next: VecDeque<Answer>,
    token: Option<String>,
}

/// An API whose items grow at the end: `GET /items?cursor=…` answers `{"items": […], "next": …}`.
pub struct Pages {
    web: Web,
    state: Arc<Mutex<State>>,
}

impl Pages {
    /// Starts one with pages of `size` items; with a token, if it is to be asked for one.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(size: usize, token: Option<&str>) -> Result<Self> {
        let state = Arc::new(Mutex::new(State { token: token.map(str::to_owned), ..State::default() }));
        let shared = Arc::clone(&state);
        let web = Web::start(move |asked| lock(&shared).answer(asked, size))?;
        Ok(Self { web, state })
    }

    /// Adds items, numbered on: `{"id": 7, "text": "item 7"}`. Returns how many there are.
    pub fn add(&self, count: usize) -> usize {
        let items = &mut lock(&self.state).items;
        let from = items.len();
        items.extend((from..from + count).map(|id| json!({ "id": id, "text": format!("item {id}") })));
        items.len()
    }

    /// Puts another item in the place of one, or takes off what is behind it.
    pub fn change(&self, change: impl FnOnce(&mut Vec<Json>)) {
        change(&mut lock(&self.state).items);
    }

    /// What the next requests are answered with instead.
    pub fn answer_next(&self, answers: impl IntoIterator<Item = Answer>) {
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
    fn answer(&mut self, asked: &Asked, size: usize) -> Answer {
        if let Some(answer) = self.next.pop_front() {
            return answer;
        }
        let expected = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if expected.is_some() && asked.header("authorization") != expected.as_deref() {
            return Answer::status(401);
        }
        // A cursor says where its page begins.
        let start = match asked.parameter("cursor").map(str::parse) {
            None => 0,
            Some(Ok(start)) if start <= self.items.len() => start,
            Some(_) => return Answer::status(410),
        };
        let end = self.items.len().min(start + size);
        let next = (end < self.items.len()).then_some(end);
        Answer::json(&json!({ "items": self.items.get(start..end), "next": next }))
    }
}
