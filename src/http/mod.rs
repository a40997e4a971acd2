//! HTTP/1.1: requests, responses and the listener. `api` answers the requests, `cli` starts the listener; it alone
//! binds sockets.

pub mod loopback;
pub mod request;
pub mod response;
pub mod server;
mod sockets;

pub use request::Head;
pub use response::Response;
