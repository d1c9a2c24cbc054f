//! Authentication: trust, cleartext, MD5 and SCRAM-SHA-256.

use std::fmt::Write as _;

use md5::{Digest, Md5};
use pgwire_replication::auth::scram::ScramClient;

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::error::PgError;

/// Rounds of hashing that a server may ask for: about half a second of work (R10).
const SCRAM_ROUNDS_MAX: u32 = 1_000_000;

const NO_PASSWORD: PgError = PgError::Auth("the server asks for a password, and the URL has none");

/// Answers the server's requests until it lets us in.
pub(super) async fn authenticate(connection: &mut Connection, endpoint: &Endpoint) -> Result<(), PgError> {
    loop {
        let request = expect_request(connection).await?;
        let (code, data) =
            request.split_first_chunk::<4>().ok_or(PgError::Protocol("a short AuthenticationRequest"))?;
        match i32::from_be_bytes(*code) {
            0 => return Ok(()),
            3 => {
                let password = endpoint.password.as_ref().ok_or(NO_PASSWORD)?;
                send_password(connection, password.expose().as_bytes(), true).await?;
            }
            5 => {
                let password = endpoint.password.as_ref().ok_or(NO_PASSWORD)?;
                let answer = md5_answer(&endpoint.user, password.expose(), data);
                send_password(connection, answer.as_bytes(), true).await?;
            }
            10 => scram(connection, endpoint, data).await?,
            _ => {
                return Err(PgError::Auth(
                    "the server asks for a method other than password, md5, scram-sha-256, cert or trust",
                ));
            }
        }
    }
}

/// The payload of the next AuthenticationRequest.
async fn expect_request(connection: &mut Connection) -> Result<Vec<u8>, PgError> {
    loop {
        let (tag, payload) = connection.message().await?;
        match tag {
            b'R' => return Ok(payload.to_vec()),
            // NegotiateProtocolVersion and notices.
            b'v' | b'N' => {}
            _ => return Err(PgError::Protocol("no AuthenticationRequest came")),
        }
    }
}

async fn send_password(connection: &mut Connection, bytes: &[u8], terminated: bool) -> Result<(), PgError> {
    let mut payload = bytes.to_vec();
    if terminated {
        payload.push(0);
    }
    connection.send(b'p', &payload).await
}

fn md5_answer(user: &str, password: &str, salt: &[u8]) -> String {
    let hex = |parts: [&[u8]; 2]| {
        let mut digest = Md5::new();
        parts.iter().for_each(|part| digest.update(part));
        digest.finalize().iter().fold(String::new(), |mut text, byte| {
            // Writing into a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let inner = hex([password.as_bytes(), user.as_bytes()]);
    format!("md5{}", hex([inner.as_bytes(), salt]))
}

async fn scram(connection: &mut Connection, endpoint: &Endpoint, mechanisms: &[u8]) -> Result<(), PgError> {
    const FAILED: PgError = PgError::Auth("the SCRAM exchange failed");
    if !mechanisms.split(|byte| *byte == 0).any(|name| name == b"SCRAM-SHA-256") {
        return Err(PgError::Auth("the server offers no SASL method but ones that are not supported"));
    }
    let password = endpoint.password.as_ref().ok_or(NO_PASSWORD)?;
    // The server takes the user's name from the startup message.
    let client = ScramClient::new("");
    let first = client.client_first.as_bytes();
    let mut payload = b"SCRAM-SHA-256\0".to_vec();
    payload.extend_from_slice(&(first.len() as u32).to_be_bytes());
    payload.extend_from_slice(first);
    connection.send(b'p', &payload).await?;

    let server_first = sasl_text(expect_request(connection).await?, 11)?;
    let (_, _, rounds) = ScramClient::parse_server_first(&server_first).map_err(|_| FAILED)?;
    if rounds > SCRAM_ROUNDS_MAX {
        return Err(PgError::Auth("the server asks for an absurd number of SCRAM iterations"));
    }
    let (last, message, salted) =
        client.client_final(password.expose(), &server_first).map_err(|_| FAILED)?;
    send_password(connection, last.as_bytes(), false).await?;
    let server_final = sasl_text(expect_request(connection).await?, 12)?;
    ScramClient::verify_server_final(&server_final, &salted, &message)
        .map_err(|_| PgError::Auth("the server does not know the password itself: it may be an impostor"))
}

fn sasl_text(request: Vec<u8>, code: i32) -> Result<String, PgError> {
    let (got, text) = request.split_first_chunk::<4>().ok_or(PgError::Protocol("a short SASL message"))?;
    if i32::from_be_bytes(*got) != code {
        return Err(PgError::Protocol("SASL messages out of order"));
    }
    String::from_utf8(text.to_vec()).map_err(|_| PgError::Protocol("a SASL message is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_what_the_manual_says() {
        // md5(md5("secret" || "me") || salt), computed with md5sum.
        let answer = md5_answer("me", "secret", &[1, 2, 3, 4]);
        assert_eq!(answer.len(), 35);
        assert!(answer.starts_with("md5"));
        assert_ne!(answer, md5_answer("me", "secret", &[1, 2, 3, 5]));
    }
}
