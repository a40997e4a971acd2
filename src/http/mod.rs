//! HTTP/1.1 as bytes: what a request may look like, and what an answer looks like.
//! It knows no sockets, no clock and no route.

pub mod request;
pub mod response;
