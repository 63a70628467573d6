//! One file for each exchange: what the initiator builds and processes, and what the responder
//! processes and builds.

pub(crate) mod create_child;
pub(crate) mod create_child_responder;
pub(crate) mod delete;
pub(crate) mod ike_auth;
pub(crate) mod ike_sa_init;
pub(crate) mod ike_sa_init_responder;
pub(crate) mod informational;
pub(crate) mod mobike;
pub(crate) mod parts;
pub(crate) mod rekey_ike;
