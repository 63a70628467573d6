//! Counters of an endpoint: everything that is dropped or refused has a name.

/// Totals since the endpoint was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Datagrams handed in.
    pub received: u64,
    /// Datagrams handed out.
    pub sent: u64,
    /// Not an IKE message: too short, a wrong length, payloads that do not parse.
    pub malformed: u64,
    /// A major version other than 2.
    pub bad_version: u64,
    /// For an IKE SA that we do not have.
    pub unknown_spi: u64,
    /// A protected message that does not authenticate, or a fragment that cannot be.
    pub unauthentic: u64,
    /// A message id outside the window, or an answer to nothing.
    pub outside_window: u64,
    /// An exchange or a payload that the phase of the IKE SA does not allow.
    pub out_of_phase: u64,
    /// Requests received again and answered from the cache.
    pub answered_again: u64,
    /// Requests that we sent again.
    pub retransmits: u64,
    /// Requests of ours that nobody answered.
    pub gave_up: u64,
    /// COOKIE challenges sent.
    pub cookies_sent: u64,
    /// Requests with a COOKIE that is not ours.
    pub cookies_bad: u64,
    /// New IKE SAs refused because there are too many half-open ones, in all or of one source.
    pub half_open_refused: u64,
    /// Half-open IKE SAs that never authenticated.
    pub half_open_expired: u64,
    /// Peers that no tunnel is configured for.
    pub unknown_peer: u64,
    /// No common proposal, of either SA.
    pub no_proposal: u64,
    /// A KE payload that is not valid for its group.
    pub invalid_ke: u64,
    /// AUTH or identities that were refused.
    pub auth_failed: u64,
    /// No common traffic selectors.
    pub ts_unacceptable: u64,
    /// TEMPORARY_FAILURE answered.
    pub temporary_failures: u64,
    /// Unauthenticated error notifications, which are only a hint.
    pub hints: u64,
    /// UPDATE_SA_ADDRESSES sent and followed.
    pub address_updates: u64,
    /// Return routability checks begun.
    pub path_checks: u64,
    /// IKE SAs authenticated.
    pub established: u64,
    /// Child SAs made, rekeys included.
    pub children: u64,
    /// Peers found dead.
    pub dead_peers: u64,
}
