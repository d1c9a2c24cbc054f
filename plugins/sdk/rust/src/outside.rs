//! What a source or a sink may do outside, as far as the YAML grants it. Where there is no host, as in a plugin's own
//! tests, everything here is refused.

#[cfg(not(target_arch = "wasm32"))]
fn nowhere<T>() -> Result<T, crate::Error> {
    Err(crate::Error::terminal("PLUGIN_OUTSIDE", "there is no host here"))
}

/// HTTP, to the hosts of `plugins.NAME.grants.http`.
pub mod http {
    use crate::Error;

    /// A request.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Request {
        /// `GET`, `POST` and so on.
        pub method: String,
        /// `http://` or `https://`; no user and no password in it.
        pub url: String,
        /// Name and value; marks of secrets are replaced in values.
        pub headers: Vec<(String, String)>,
        /// At most 16 MiB; marks of secrets are replaced.
        pub body: Vec<u8>,
        /// Until the whole answer is there.
        pub timeout_ms: u32,
    }

    impl Request {
        /// A request without headers and body that may take ten seconds.
        #[must_use]
        pub fn new(method: &str, url: impl Into<String>) -> Self {
            let (headers, body) = (Vec::new(), Vec::new());
            Self { method: method.to_owned(), url: url.into(), headers, body, timeout_ms: 10_000 }
        }

        /// The same with one header more.
        #[must_use]
        pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
            self.headers.push((name.to_owned(), value.into()));
            self
        }

        /// The same with Basic authentication, whose password is a secret option that the plugin does not see; without
        /// authentication if the user has not given it.
        ///
        /// # Errors
        /// `NeedsOperator` where the secret is not granted.
        pub fn basic_auth(self, user: &str, option: &str) -> Result<Self, Error> {
            let form = super::secrets::Form::Base64 { before: format!("{user}:"), after: String::new() };
            let secret = super::secrets::get_as(option, &form)?;
            Ok(match secret {
                Some(secret) => self.header("authorization", format!("Basic {}", secret.mark)),
                None => self,
            })
        }

        /// The same with a body.
        #[must_use]
        pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
            Self { body: body.into(), ..self }
        }
    }

    /// An answer, whatever its status.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Response {
        /// The status.
        pub status: u16,
        /// Those headers whose values are text.
        pub headers: Vec<(String, String)>,
        /// At most 16 MiB.
        pub body: Vec<u8>,
    }

    /// Sends a request.
    ///
    /// # Errors
    /// `NeedsOperator` where it is not granted, `RetryAfter` where no answer comes.
    #[cfg(target_arch = "wasm32")]
    pub fn send(request: Request) -> Result<Response, Error> {
        use crate::bindings_source::towpath::plugin::http as host;
        let Request { method, url, headers, body, timeout_ms } = request;
        let sent = host::send(&host::Request { method, url, headers, body, timeout_ms });
        let host::Response { status, headers, body } = sent.map_err(crate::bindings::error_in)?;
        Ok(Response { status, headers, body })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// There is no host here.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn send(request: Request) -> Result<Response, Error> {
        let _ = request;
        super::nowhere()
    }
}

/// TCP, to the hosts and ports of `plugins.NAME.grants.tcp`.
pub mod tcp {
    use crate::Error;

    /// What a read brought.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Received {
        /// At least one byte.
        Bytes(Vec<u8>),
        /// Nothing in time.
        Nothing,
        /// The other side has closed the connection.
        Closed,
    }

    /// A connection, closed when it is dropped.
    #[derive(Debug)]
    pub struct Connection {
        #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "there is no host there"))]
        number: u32,
    }

    #[cfg(target_arch = "wasm32")]
    impl Connection {
        /// Connects.
        ///
        /// # Errors
        /// `NeedsOperator` where it is not granted, `RetryAfter` where nobody answers.
        pub fn open(host: &str, port: u16, timeout_ms: u32) -> Result<Self, Error> {
            let number = crate::bindings_source::towpath::plugin::tcp::connect(host, port, timeout_ms);
            Ok(Self { number: number.map_err(crate::bindings::error_in)? })
        }

        /// What has come, at most `max` bytes of it; waits for the first one.
        ///
        /// # Errors
        /// When the connection is broken.
        pub fn read(&mut self, max: u32, timeout_ms: u32) -> Result<Received, Error> {
            use crate::bindings_source::towpath::plugin::tcp as host;
            Ok(match host::read(self.number, max, timeout_ms).map_err(crate::bindings::error_in)? {
                host::Received::Bytes(bytes) => Received::Bytes(bytes),
                host::Received::Nothing => Received::Nothing,
                host::Received::Closed => Received::Closed,
            })
        }

        /// Writes all of it; marks of secrets are replaced.
        ///
        /// # Errors
        /// When the connection is broken, and from then on it is.
        pub fn write(&mut self, bytes: &[u8], timeout_ms: u32) -> Result<(), Error> {
            let written = crate::bindings_source::towpath::plugin::tcp::write(self.number, bytes, timeout_ms);
            written.map_err(crate::bindings::error_in)
        }
    }

    #[cfg(target_arch = "wasm32")]
    impl Drop for Connection {
        fn drop(&mut self) {
            crate::bindings_source::towpath::plugin::tcp::close(self.number);
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    impl Connection {
        /// Connects.
        ///
        /// # Errors
        /// There is no host here.
        pub fn open(host: &str, port: u16, timeout_ms: u32) -> Result<Self, Error> {
            let _ = (host, port, timeout_ms);
            super::nowhere()
        }

        /// What has come.
        ///
        /// # Errors
        /// There is no host here.
        pub fn read(&mut self, max: u32, timeout_ms: u32) -> Result<Received, Error> {
            let _ = (max, timeout_ms);
            super::nowhere()
        }

        /// Writes all of it.
        ///
        /// # Errors
        /// There is no host here.
        pub fn write(&mut self, bytes: &[u8], timeout_ms: u32) -> Result<(), Error> {
            let _ = (bytes, timeout_ms);
            super::nowhere()
        }
    }
}

/// Secret options, for use without being seen: those that `plugins.NAME.grants.secrets` names.
pub mod secrets {
    use crate::Error;

    /// A secret that can be sent and not read.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Secret {
        /// Stands for the value in headers and bodies of HTTP and in what is written by TCP.
        pub mark: String,
        /// Bytes of the value as it is sent, for protocols that tell lengths.
        pub length: u32,
    }

    /// How a value is sent.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Form {
        /// As it stands between the quotes of a JSON text.
        Json,
        /// Base64 with padding.
        Base64 {
            /// What is encoded before it, at most 1 KiB.
            before: String,
            /// What is encoded after it, at most 1 KiB.
            after: String,
        },
    }

    /// The secret option of this name; `None` if the user has not given it.
    ///
    /// # Errors
    /// `NeedsOperator` where it is not granted.
    #[cfg(target_arch = "wasm32")]
    pub fn get(name: &str) -> Result<Option<Secret>, Error> {
        let found = crate::bindings_source::towpath::plugin::secrets::get(name);
        let found = found.map_err(crate::bindings::error_in)?;
        Ok(found.map(|it| Secret { mark: it.mark, length: it.length }))
    }

    /// The same, to be sent in another form.
    ///
    /// # Errors
    /// `NeedsOperator` where it is not granted, `Terminal` for ever other forms: there can be 64.
    #[cfg(target_arch = "wasm32")]
    pub fn get_as(name: &str, form: &Form) -> Result<Option<Secret>, Error> {
        use crate::bindings_source::towpath::plugin::secrets as host;
        let form = match form.clone() {
            Form::Json => host::Form::Json,
            Form::Base64 { before, after } => host::Form::Base64(host::Around { before, after }),
        };
        let found = host::get_as(name, &form).map_err(crate::bindings::error_in)?;
        Ok(found.map(|it| Secret { mark: it.mark, length: it.length }))
    }

    /// The secret option of this name.
    ///
    /// # Errors
    /// There is no host here.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn get(name: &str) -> Result<Option<Secret>, Error> {
        let _ = name;
        super::nowhere()
    }

    /// The same, to be sent in another form.
    ///
    /// # Errors
    /// There is no host here.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn get_as(name: &str, form: &Form) -> Result<Option<Secret>, Error> {
        let _ = (name, form);
        super::nowhere()
    }
}

/// A source's small memory that survives crashes: `plugins.NAME.grants.state`. What is written becomes durable with the
/// offsets of the poll that it is written in, or of the next. Keys have at most 256 bytes, values 64 KiB, all together
/// 1 MiB.
pub mod state {
    use crate::Error;

    /// The value under a key.
    ///
    /// # Errors
    /// `NeedsOperator` where it is not granted.
    #[cfg(target_arch = "wasm32")]
    pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        crate::bindings_source::towpath::plugin::state::get(key).map_err(crate::bindings::error_in)
    }

    /// Replaces the value under a key; `None` removes it.
    ///
    /// # Errors
    /// `NeedsOperator` where it is not granted, `Terminal` where it is too large.
    #[cfg(target_arch = "wasm32")]
    pub fn set(key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        crate::bindings_source::towpath::plugin::state::set(key, value).map_err(crate::bindings::error_in)
    }

    /// All keys, in order.
    ///
    /// # Errors
    /// `NeedsOperator` where it is not granted.
    #[cfg(target_arch = "wasm32")]
    pub fn keys() -> Result<Vec<String>, Error> {
        crate::bindings_source::towpath::plugin::state::keys().map_err(crate::bindings::error_in)
    }

    /// The value under a key.
    ///
    /// # Errors
    /// There is no host here.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        let _ = key;
        super::nowhere()
    }

    /// Replaces the value under a key.
    ///
    /// # Errors
    /// There is no host here.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn set(key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        let _ = (key, value);
        super::nowhere()
    }

    /// All keys.
    ///
    /// # Errors
    /// There is no host here.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn keys() -> Result<Vec<String>, Error> {
        super::nowhere()
    }
}
