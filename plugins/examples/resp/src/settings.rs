//! The options that all Redis plugins have.

use towpath_sdk::{Config, Element, OptionSpec, Problem};

/// Where the server is, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The user, where it is not the server's default one.
    pub username: Option<String>,
    /// The number of the database.
    pub database: i64,
}

/// Their declarations.
#[must_use]
pub fn options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::required(
            "address",
            Element::NonEmptyText,
            "`host:port` of the server, which the plugin must be granted: `grants: { tcp: [\"host:port\"] }`.",
        ),
        OptionSpec::optional("username", Element::NonEmptyText, "The user, if it is not the default one."),
        OptionSpec::optional(
            "password",
            Element::NonEmptyText,
            "The password, which the plugin sends without seeing it: `grants: { secrets: [password] }`.",
        )
        .secret(),
        OptionSpec::optional("database", Element::Integer(0, 1_000_000), "The number of the database.")
            .default_json("0"),
    ]
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// An address that is none.
    pub fn read(config: &Config) -> Result<Self, Problem> {
        let address = config.text("address").unwrap_or_default();
        let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = parts.filter(|(host, port)| !host.is_empty() && *port > 0) else {
            let mut problem = Problem::new("address", "this is no address of a server");
            problem.hint = Some("write `host:port`; Redis listens on port 6379".to_owned());
            return Err(problem);
        };
        let (host, username) = (host.to_owned(), config.text("username"));
        Ok(Self { host, port, username, database: config.integer("database").unwrap_or(0) })
    }
}
