//! The right to build namespaces: root, or a user namespace in which the user is root.

use crate::error::{LabError, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;

/// How this process got the right to build namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// It ran as root from the start.
    Root,
    /// It is root in a user namespace of its own.
    UserNamespace,
}

/// Makes this process able to build network namespaces. When it is not root it moves itself into
/// a user namespace, which the kernel allows only while the process has a single thread: call this
/// first in `main`.
pub fn acquire() -> Result<Privilege> {
    if geteuid().is_root() {
        // Root in a container may lack the capability; then a user namespace may still be allowed.
        if may_unshare() {
            return Ok(Privilege::Root);
        }
    }
    enter_user_namespace()?;
    Ok(Privilege::UserNamespace)
}

/// Whether network and mount namespaces can be made as things are, tried on a thread that ends.
fn may_unshare() -> bool {
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).is_ok())
        .join()
        .unwrap_or(false)
}

fn enter_user_namespace() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| {
        LabError::Privilege(format!(
            "the lab needs root or unprivileged user namespaces, and this machine refused both ({errno}): run it as \
             root, or allow them with `sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1`"
        ))
    })?;
    let map = |file: &str, text: String| {
        fs::write(file, text).map_err(|error| {
            LabError::Privilege(format!(
                "the lab could not become root in its user namespace ({file}: {error})"
            ))
        })
    };
    map("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    map("/proc/self/setgroups", "deny".into())?;
    map("/proc/self/gid_map", format!("0 {gid} 1\n"))
}
