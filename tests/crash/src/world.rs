//! A source database, a target database, and a towpath between them that is killed now and then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use towpath_harness::process::Options;
use towpath_harness::{Postgres, Towpath, postgres};

use crate::{Fire, Table, assert_equal, deliver};

/// How long a delivery may take.
const DELIVERY: Duration = Duration::from_secs(240);

/// Databases `shop` and `warehouse` on one server, and towpath.
#[derive(Debug)]
pub struct World {
    /// The dice.
    pub fire: Fire,
    /// Both databases.
    pub server: Postgres,
    /// The process.
    pub towpath: Towpath,
}

impl World {
    /// Runs `setup` in `shop` and `target` in `warehouse`, and starts `pipelines`, which know both by `SHOP_URL` and
    /// `WAREHOUSE_URL`.
    ///
    /// # Errors
    /// If something does not start.
    pub fn new(setup: &str, target: &str, pipelines: &str) -> Result<Self> {
        let fire = Fire::new()?;
        let server = Postgres::start(&postgres::Options::logical())?;
        server.create_database("shop")?;
        server.create_database("warehouse")?;
        server.psql("shop", setup)?;
        server.psql("warehouse", target)?;
        let options = Options::yaml(pipelines)
            .env("SHOP_URL", server.url("shop"))
            .env("WAREHOUSE_URL", server.url("warehouse"));
        let towpath = Towpath::start(options)?;
        Ok(Self { fire, server, towpath })
    }

    /// Runs SQL in the source.
    ///
    /// # Errors
    /// If it fails there.
    pub fn sql(&self, sql: &str) -> Result<()> {
        self.server.psql("shop", sql).map(drop)
    }

    /// Lets towpath run for up to a second and a half, and kills it.
    ///
    /// # Errors
    /// As [`Fire::strike`].
    pub fn strike(&mut self) -> Result<()> {
        self.fire.strike(&mut self.towpath, Duration::from_millis(50)..Duration::from_millis(1500))
    }

    /// Runs `statements` in the source again and again, each in a transaction of its own, while `work` runs.
    ///
    /// # Errors
    /// Those of `work`, or of a statement.
    pub fn under_load(
        &mut self,
        statements: &[&str],
        work: impl FnOnce(&mut Load<'_>) -> Result<()>,
    ) -> Result<()> {
        let stop = AtomicBool::new(false);
        let Self { fire, server, towpath } = self;
        let server = &*server;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Acquire) {
                    for sql in statements {
                        server.psql("shop", sql)?;
                    }
                }
                Ok(())
            });
            let worked = work(&mut Load { fire, server, towpath });
            stop.store(true, Ordering::Release);
            let written = writer.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the writer panicked")));
            worked.and(written)
        })
    }

    /// Delivers everything, and compares.
    ///
    /// # Errors
    /// If towpath does not end well, or the tables differ.
    pub fn end(mut self, tables: &[Table]) -> Result<()> {
        deliver(&mut self.towpath, DELIVERY)?;
        assert_equal(&self.server, "shop", "warehouse", tables)
            .map_err(|error| error.context(format!("seed {}\n{}", self.fire.seed, self.towpath.log_tail())))
    }
}

/// A [`World`] whose source is being written to.
#[derive(Debug)]
pub struct Load<'a> {
    fire: &'a mut Fire,
    server: &'a Postgres,
    towpath: &'a mut Towpath,
}

impl Load<'_> {
    /// As [`World::sql`].
    ///
    /// # Errors
    /// If it fails there.
    pub fn sql(&self, sql: &str) -> Result<()> {
        self.server.psql("shop", sql).map(drop)
    }

    /// As [`World::strike`].
    ///
    /// # Errors
    /// As [`Fire::strike`].
    pub fn strike(&mut self) -> Result<()> {
        self.fire.strike(self.towpath, Duration::from_millis(50)..Duration::from_millis(1500))
    }

    /// Lets things happen for a while.
    pub fn wait(&self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
}
