//! HTTP for guests, to where it is granted.

use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url, redirect};
use towpath_types::limits::{PLUGIN_HTTP_BYTES_MAX, PLUGIN_HTTP_HEADER_BYTES_MAX, PLUGIN_HTTP_HEADERS_MAX};

use super::bindings::towpath::plugin::http as wit;
use super::bindings::towpath::plugin::types::Error;
use super::component::Loaded;
use super::error::cut;
use super::grants::{Grants, refused};
use super::outside::{passing, wrong};
use super::secrets::Marks;
use super::state::State;

const REDIRECTS_MAX: usize = 5;

/// `host:port` of a URL, as a grant names it.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_granted(grants: &Grants, url: &Url) -> bool {
    let usual = match url.scheme() {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let port = url.port().unwrap_or(usual);
    url.host_str().is_some_and(|host| grants.http(host, port, Some(usual)))
}

/// The client of a plugin. It follows redirects to granted hosts only.
fn client(plugin: &Arc<Loaded>) -> Result<Client, Error> {
    if let Some(client) = plugin.http.get() {
        return Ok(client.clone());
    }
    let (grants, name) = (plugin.grants.clone(), Arc::clone(&plugin.name));
    let policy = redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error(format!("there are more than {REDIRECTS_MAX} redirects"));
        }
        if is_granted(&grants, attempt.url()) {
            return attempt.follow();
        }
        let place = place(attempt.url());
        attempt.error(NotGranted(format!(
            "it is redirected to {place}, which is not granted: plugins.{name}.grants.http: [\"{place}\"]"
        )))
    });
    let agent = concat!("towpath/", env!("CARGO_PKG_VERSION"));
    let built = Client::builder().redirect(policy).user_agent(agent).build();
    let built =
        built.map_err(|error| wrong("PLUGIN_HTTP", format!("the HTTP client cannot be set up: {error}")))?;
    Ok(plugin.http.get_or_init(|| built).clone())
}

/// A redirect to where the plugin may not go.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotGranted(String);

/// What a failed request says, without its URL, and all that lies under it.
fn failure(plugin: &str, place: &str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let (mut text, mut cause) = (error.to_string(), std::error::Error::source(&error));
    while let Some(it) = cause {
        if let Some(NotGranted(what)) = it.downcast_ref() {
            return refused(plugin, &format!("follow a request to {place}: {what}"), "http");
        }
        text.push_str(": ");
        text.push_str(&it.to_string());
        cause = it.source();
    }
    passing("PLUGIN_HTTP", format!("{place} does not answer: {text}"))
}

fn headers(given: &[(String, String)], marks: &Marks) -> Result<HeaderMap, Error> {
    let bytes: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    if given.len() > PLUGIN_HTTP_HEADERS_MAX || bytes > PLUGIN_HTTP_HEADER_BYTES_MAX {
        return Err(wrong("PLUGIN_LIMIT", "the request has too many headers, or too large ones"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let bad = || wrong("PLUGIN_HTTP", format!("the header `{}` cannot be sent", cut(name, 100)));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_bytes(&marks.replace(value.as_bytes())).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
}

async fn fetch(
    request: reqwest::RequestBuilder,
) -> Result<Result<wit::Response, &'static str>, reqwest::Error> {
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    if response.headers().len() > PLUGIN_HTTP_HEADERS_MAX {
        return Ok(Err("the answer has too many headers"));
    }
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let headers = response.headers().iter().filter_map(text).collect();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        // R10: what is too long is not read to its end.
        if body.len() + chunk.len() > PLUGIN_HTTP_BYTES_MAX {
            return Ok(Err("the answer is longer than 16 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Ok(wit::Response { status, headers, body }))
}

impl State {
    async fn http(&mut self, request: wit::Request) -> Result<wit::Response, Error> {
        self.may_reach()?;
        let url: Url = request.url.parse().map_err(|error| {
            wrong("PLUGIN_HTTP", format!("the URL of the request cannot be read: {error}"))
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("PLUGIN_HTTP", "the URL of the request has a user or a password in it"));
        }
        let place = place(&url);
        if !is_granted(&self.plugin.grants, &url) {
            let what = format!("send HTTP requests to {place}");
            return Err(refused(&self.plugin.name, &what, &format!("http: [\"{place}\"]")));
        }
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| wrong("PLUGIN_HTTP", "the method of the request is none"))?;
        let headers = headers(&request.headers, &self.marks)?;
        let body = self.marks.replace(&request.body).into_owned();
        if body.len() > PLUGIN_HTTP_BYTES_MAX {
            return Err(wrong("PLUGIN_LIMIT", "the body of the request is longer than 16 MiB"));
        }
        let mut built = client(&self.plugin)?.request(method, url).headers(headers);
        if !body.is_empty() {
            built = built.body(body);
        }
        match self.wait(request.timeout_ms, fetch(built)).await {
            None => Err(passing("PLUGIN_HTTP", format!("{place} does not answer in time"))),
            Some(Err(error)) => Err(failure(&self.plugin.name, &place, error)),
            Some(Ok(Err(what))) => Err(wrong("PLUGIN_LIMIT", format!("{place}: {what}"))),
            Some(Ok(Ok(response))) => Ok(response),
        }
    }
}

impl wit::Host for State {
    async fn send(&mut self, request: wit::Request) -> wasmtime::Result<Result<wit::Response, Error>> {
        Ok(self.http(request).await)
    }
}
