//! The broker's public face, spoken to by hand over streams of this process and over TCP.

mod admin;
mod fetch;
mod groups;
mod limits;
mod produce;
mod protocol;
mod restart;
mod support;
