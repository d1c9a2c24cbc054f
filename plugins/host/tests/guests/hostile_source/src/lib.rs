//! A source that brings numbers, and does in one of its functions (`at`) what it is told (`how`): nothing good.

use std::sync::atomic::{AtomicU32, Ordering};

use towpath_sdk::{
    Budget, Config, Descriptor, Element, Error, Field, Level, Offsets, OptionSpec, Polled, Position, Problem,
    Records, Rejection, Scalar, Schema, Source, Task, Value, http, log, random, secrets, state, tcp,
};

struct Hostile {
    next: i64,
    count: i64,
}

fn option(name: &str) -> String {
    Config::default().text(name).unwrap_or_default()
}

fn place(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (host, port.parse().unwrap_or(0))
}

/// Compares with a word that stands in the module as it is, so that tests can put another in its place.
fn is(how: &str, word: &'static str) -> bool {
    how == std::hint::black_box(word)
}

/// Loops in the call of `descriptor` whose number is in the module: 9, unless a test puts another in its place. The SDK
/// answers several exports with it.
fn perhaps_loop() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    while is(&format!("descriptor {call}"), "descriptor 9") {}
}

fn deep(depth: u64) -> u64 {
    let held = [depth; 64];
    std::hint::black_box(&held);
    if depth == u64::MAX { 0 } else { deep(depth + 1) + held[(depth % 64) as usize] }
}

fn hog() -> ! {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(vec![1; 1 << 20]);
        std::hint::black_box(&held);
    }
}

/// What is remembered, and whether anything of other tasks can be seen.
fn remember() -> Result<String, Error> {
    let known = state::get("k")?.map(|it| String::from_utf8_lossy(&it).into_owned());
    let others: Vec<_> = ["towpath:state:1:k", "1:k", "state:1:k", "../1:k"]
        .iter()
        .filter_map(|key| state::get(key).transpose())
        .collect();
    state::set("k", Some(format!("{}x", known.clone().unwrap_or_default()).as_bytes()))?;
    Ok(format!("{known:?} {} {:?}", others.len(), state::keys()?))
}

/// Secrets in other forms, or ever more of them.
fn send_secrets(how: &str, target: &str) -> Result<String, Error> {
    Ok(match how {
        "basic" => {
            let request = http::Request::new("POST", target).basic_auth("user", "token")?;
            let token = secrets::get_as("token", &secrets::Form::Json)?.map(|it| it.mark).unwrap_or_default();
            let answer = http::send(request.body(format!("{{\"token\":\"{token}\"}}>")))?;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            log(Level::Error, &said);
            said
        }
        "marks" => loop {
            let before = random(8).iter().map(|byte| format!("{byte:02x}")).collect();
            secrets::get_as("token", &secrets::Form::Base64 { before, after: String::new() })?;
        },
        "secrets" => loop {
            let _refused = secrets::get("token");
        },
        _ => String::new(),
    })
}

/// Does what the options say, in the function that they say. What it finds out is the text.
fn act(at: &str) -> Result<Option<String>, Error> {
    if option("at") != at {
        return Ok(None);
    }
    let target = option("target");
    let (host, port) = place(&target);
    Ok(Some(match option("how").as_str() {
        "loop" => loop {
            std::hint::black_box(0);
        },
        "panic" => panic!("on purpose"),
        "hog" => hog(),
        "stack" => deep(std::hint::black_box(0)).to_string(),
        // All that there can be, at once.
        "giant" if core::arch::wasm32::memory_grow::<0>(65_000) == usize::MAX => panic!("it is not there"),
        "fail" => return Err(Error::terminal("HOSTILE", format!("no more {}", option("token")))),
        "flood" => loop {
            let _refused = tcp::Connection::open(host, port, 1_000);
        },
        "waits" => loop {
            let mut connection = tcp::Connection::open(host, port, 60_000)?;
            let _nothing = connection.read(1, 60_000)?;
        },
        "connections" => {
            let mut held = Vec::new();
            loop {
                held.push(tcp::Connection::open(host, port, 1_000)?);
            }
        }
        "http" => {
            let token = secrets::get("token")?.map(|it| it.mark).unwrap_or_default();
            let request =
                http::Request::new("POST", target).header("authorization", format!("Bearer {token}"));
            let answer = http::send(request.body(format!("<{token}>")))?;
            format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
        }
        "get" => {
            let answer =
                http::send(http::Request { timeout_ms: 60_000, ..http::Request::new("GET", target) })?;
            format!("{} {} bytes", answer.status, answer.body.len())
        }
        "tcp" => {
            let mut connection = tcp::Connection::open(host, port, 1_000)?;
            let token =
                secrets::get("token")?.map(|it| format!("{}{}", it.mark, it.length)).unwrap_or_default();
            connection.write(token.as_bytes(), 1_000)?;
            match connection.read(1 << 30, 5_000)? {
                tcp::Received::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                other => format!("{other:?}"),
            }
        }
        "secret" => {
            let seen = option("token");
            log(Level::Error, &format!("the token is {seen}"));
            let mark = secrets::get("token")?.map(|it| it.mark).unwrap_or_default();
            let json = Config::default().json("token").unwrap_or_default();
            format!("{seen}|{json}|{}", mark.starts_with("towpath-secret-"))
        }
        how @ ("basic" | "marks" | "secrets") => send_secrets(how, &target)?,
        "state" => remember()?,
        _ => String::new(),
    }))
}

fn said(out: &mut Records<'_>, text: &str) {
    let schema =
        out.define(Schema::plain("said", vec![Field::nullable("text", Scalar::Text)])).unwrap_or(u32::MAX);
    out.record(schema).after(|row| row.text(text)).finish();
}

/// Records and offsets that cannot be.
fn forge(out: &mut Records<'_>, number: u32) {
    match option("how").as_str() {
        "schema" => out.record(4_000).after(|row| row.text("x")).finish(),
        "type" => out.record(number).after(|row| row.text("x")).finish(),
        "topic" => out.record(number).topic("not a topic").after(|row| row.value(Value::Int(1))).finish(),
        "position" => {
            out.record(number).position(0, &[0; 2000]).after(|row| row.value(Value::Int(1))).finish()
        }
        "reserved" => out.offset("towpath:state:1:k", "stolen"),
        "nameless" => out.offset("", "1"),
        "large" => out.offset("numbers", "x".repeat(100_000)),
        "many" => (0..10_001).for_each(|n| out.offset(&n.to_string(), "1")),
        _ => {}
    }
}

impl Source for Hostile {
    fn descriptor() -> Descriptor {
        perhaps_loop();
        Descriptor::new("hostile_source", "0.1.0", "Does what it is told")
            .option(OptionSpec::optional("at", Element::Text, "Where to do it."))
            .option(OptionSpec::optional("how", Element::Text, "What to do."))
            .option(OptionSpec::optional("target", Element::Text, "Where to go."))
            .option(OptionSpec::optional("token", Element::Text, "Something secret.").secret())
            .option(
                OptionSpec::optional("count", Element::Integer(0, 1 << 40), "Numbers.").default_json("10"),
            )
    }

    fn check(_: &Config) -> Vec<Problem> {
        match act("check_config") {
            Ok(_) => Vec::new(),
            Err(error) => vec![Problem::new("how", format!("{error:?}"))],
        }
    }

    fn probe(_: &Config) -> Result<Vec<String>, Vec<Error>> {
        act("check").map(|said| said.into_iter().collect()).map_err(|error| vec![error])
    }

    fn plan(_: &Config, tasks_max: u32) -> Result<Vec<Task>, Error> {
        act("plan")?;
        if is(&option("at"), "harm at plan") {
            return Err(Error::terminal("HOSTILE_PLAN", "not with these"));
        }
        let tasks = match option("how").as_str() {
            "no_tasks" => 0,
            "many_tasks" => tasks_max + 1,
            _ => 1,
        };
        Ok((0..tasks).map(|index| Task { index, assignment: String::new() }).collect())
    }

    fn open(config: &Config, _: &Task, offsets: &Offsets) -> Result<Self, Error> {
        act("open")?;
        if is(&option("at"), "harm at open") {
            return Err(Error::needs_operator("HOSTILE_OPEN", "not with these"));
        }
        let next = offsets.get("numbers").and_then(|place| place.parse().ok()).unwrap_or(0);
        Ok(Self { next, count: config.integer("count").unwrap_or(0) })
    }

    fn poll(&mut self, budget: Budget, out: &mut Records<'_>) -> Result<Polled, Error> {
        if let Some(text) = act("poll")? {
            said(out, &text);
            return Ok(Polled::Open);
        }
        let schema = Schema::plain("numbers", vec![Field::nullable("n", Scalar::Int64)]);
        let Some(number) = out.define(schema) else { return Err(Error::terminal("HOSTILE", "no schema")) };
        if option("at") == "forge" {
            forge(out, number);
            return Ok(Polled::Open);
        }
        while self.next < self.count && out.len() < budget.records {
            let place = self.next.to_be_bytes();
            if self.next % 7 == 6 {
                out.reject(
                    format!("number {}", self.next),
                    &place,
                    Rejection::new("HOSTILE_NUMBER", "a seven"),
                );
            } else {
                out.record(number).position(1, &place).after(|row| row.value(Value::Int(self.next))).finish();
            }
            self.next += 1;
        }
        out.offset("numbers", self.next.to_string());
        Ok(if self.next == self.count { Polled::End } else { Polled::Open })
    }

    fn commit(&mut self, _: &Offsets) -> Result<(), Error> {
        act("commit").map(drop)
    }

    fn upstream_end(&mut self) -> Result<Option<Position>, Error> {
        act("upstream_end")?;
        Ok(Some(Position { document: self.count.to_string(), text: format!("{} numbers", self.count) }))
    }

    fn has_passed(&self, durable: &Offsets, end: &Position) -> bool {
        let _ = act("has_passed");
        let reached = durable.get("numbers").and_then(|place| place.parse::<i64>().ok()).unwrap_or(0);
        end.document.parse().is_ok_and(|end: i64| reached >= end)
    }

    fn status(&self) -> String {
        format!("at {}", self.next)
    }

    fn close(&mut self) -> Result<(), Error> {
        act("close").map(drop)
    }
}

towpath_sdk::export_source!(Hostile);
