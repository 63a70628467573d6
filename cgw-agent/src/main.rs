//! cgw-agent
#![forbid(unsafe_code)]
fn main() {}
