//! The Java peers, from Maven's jars: Apache Kafka with its tools and Connect, and the Debezium connectors.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::Guarded;
use crate::paths;

/// The version of Apache Kafka that we compare with.
pub const KAFKA_VERSION: &str = "4.3.0";

const MAVEN_TIMEOUT: Duration = Duration::from_secs(900);

/// `tests/harness/peers`.
fn descriptions() -> PathBuf {
    paths::workspace().join("tests/harness/peers")
}

/// `mvn -q -B` on a pom, with an explanation when Maven is missing.
pub(crate) fn maven(pom: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(pom).args(arguments);
    Guarded::run("mvn", command, MAVEN_TIMEOUT)
        .context("Maven could not do its part (is it installed? see tests/harness/install)")
        .map(drop)
}

/// The folder with the jars of Apache Kafka, resolved on first use.
///
/// # Errors
/// If Maven cannot resolve them.
pub fn kafka_libs() -> Result<PathBuf> {
    let pom = descriptions().join("pom.xml");
    let fingerprint = paths::fingerprint(std::slice::from_ref(&pom), &[])?;
    let folder = paths::once(&format!("kafka-{KAFKA_VERSION}"), &fingerprint, |folder| {
        let libs = folder.join("libs");
        maven(&pom, &["dependency:copy-dependencies", &format!("-DoutputDirectory={}", libs.display())])
    })?;
    Ok(folder.join("libs"))
}

/// A `java` command for a main class of Kafka's jars. `log` is where log4j writes.
///
/// # Errors
/// If Maven cannot resolve the jars.
pub fn java(main_class: &str, jvm: &[String], log: &Path) -> Result<Command> {
    let libs = kafka_libs()?;
    let mut command = Command::new("java");
    command.args(jvm);
    command.arg(format!("-Dlogfile={}", log.display()));
    command.arg(format!("-Dlog4j2.configurationFile={}", descriptions().join("log4j2.yaml").display()));
    command.arg("-cp").arg(format!("{}/*", libs.display())).arg(main_class);
    Ok(command)
}

/// A Debezium connector that can be put into Connect's `plugin.path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// `io.debezium.connector.postgresql.PostgresConnector`, 3.6.0.Final.
    DebeziumPostgres,
    /// `io.debezium.connector.jdbc.JdbcSinkConnector`, 3.3.0.Final.
    DebeziumJdbc,
}

impl Plugin {
    fn artifact(self) -> (&'static str, &'static str) {
        match self {
            Self::DebeziumPostgres => ("debezium-connector-postgres", "3.6.0.Final"),
            Self::DebeziumJdbc => ("debezium-connector-jdbc", "3.3.0.Final"),
        }
    }

    /// The connector's class.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::DebeziumPostgres => "io.debezium.connector.postgresql.PostgresConnector",
            Self::DebeziumJdbc => "io.debezium.connector.jdbc.JdbcSinkConnector",
        }
    }

    fn wants(self, jar: &str) -> bool {
        match self {
            // What Kafka's own class path holds already stays out.
            Self::DebeziumPostgres => ["debezium", "postgresql", "protobuf-java", "sketches-java"]
                .iter()
                .any(|p| jar.starts_with(p)),
            // Its own Jackson conflicts with Connect's, and the drivers of other databases are not needed.
            Self::DebeziumJdbc => {
                !["jackson-", "ojdbc", "mssql", "kafka-clients", "connect-", "slf4j", "log4j"]
                    .iter()
                    .any(|p| jar.starts_with(p))
            }
        }
    }

    /// The folder to be listed in `plugin.path`, resolved on first use; the connector lies in a folder within.
    ///
    /// # Errors
    /// If Maven cannot resolve it.
    pub fn resolve(self) -> Result<PathBuf> {
        let (artifact, version) = self.artifact();
        let pom_text = format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
             <groupId>peers</groupId><artifactId>{artifact}-plugin</artifactId><version>1</version><dependencies>\
             <dependency><groupId>io.debezium</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency></dependencies></project>\n"
        );
        let name = format!("{artifact}-{version}");
        let fingerprint = paths::fingerprint(&[], &[&pom_text, "1"])?;
        paths::once(&name, &fingerprint, |folder| {
            let pom = folder.join("pom.xml");
            std::fs::write(&pom, &pom_text)?;
            let all = folder.join("all");
            maven(
                &pom,
                &[
                    "dependency:copy-dependencies",
                    "-DincludeScope=runtime",
                    &format!("-DoutputDirectory={}", all.display()),
                ],
            )?;
            let plugin = folder.join("plugin").join(artifact);
            std::fs::create_dir_all(&plugin)?;
            let mut kept = 0;
            for jar in std::fs::read_dir(&all)? {
                let jar = jar?;
                if self.wants(&jar.file_name().to_string_lossy()) {
                    std::fs::rename(jar.path(), plugin.join(jar.file_name()))?;
                    kept += 1;
                }
            }
            if kept == 0 {
                bail!("no jar of {artifact} was resolved");
            }
            std::fs::remove_dir_all(&all)?;
            Ok(())
        })
        .map(|folder| folder.join("plugin"))
    }
}
