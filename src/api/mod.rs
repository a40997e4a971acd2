//! The HTTP interface of the service: routes and the status page. `cli` hands it to the listener in `http`.

pub mod routes;
pub mod status_page;
