//! cgw-agent
fn main() {}
