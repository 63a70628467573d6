//! How often something is said or told that others can cause as often as they like.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// So many times a second, and how many times it would have been more.
#[derive(Debug)]
pub(crate) struct Often {
    most: u64,
    second: Option<Instant>,
    count: u64,
}

impl Often {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, second: None, count: 0 }
    }

    /// Whether it may be said once more; with how often it was not in the second before, the first
    /// time in a new one.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        let over = |since: Instant| now.saturating_duration_since(since) >= Duration::from_secs(1);
        let mut left_out = 0;
        if self.second.is_none_or(over) {
            left_out = self.count.saturating_sub(self.most);
            (self.second, self.count) = (Some(now), 0);
        }
        self.count += 1;
        (self.count <= self.most).then_some(left_out)
    }
}

/// Time between two pieces of news about the same address.
const APART: Duration = Duration::from_millis(100);
/// The most addresses of which it is remembered that there were news.
const REMEMBERED: usize = 1024;

/// News about addresses, once in a while about each.
#[derive(Debug, Default)]
pub(crate) struct News(BTreeMap<SocketAddr, Instant>);

impl News {
    /// Whether this is to be told now. If there is more to tell, it comes again.
    pub(crate) fn admit(&mut self, about: SocketAddr, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < APART;
        if self.0.get(&about).is_some_and(recent) {
            return false;
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| recent(at));
        }
        if self.0.len() >= REMEMBERED {
            return false;
        }
        self.0.insert(about, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_times_a_second_and_then_how_many_more_it_was() {
        let start = Instant::now();
        let mut often = Often::new(3);
        let said: Vec<_> = (0..1000).filter_map(|_| often.admit(start)).collect();
        assert_eq!(said, [0, 0, 0]);
        let later = start + Duration::from_secs(1);
        let said: Vec<_> = (0..5).filter_map(|_| often.admit(later)).collect();
        assert_eq!(said, [997, 0, 0]);
        assert_eq!(often.admit(later + Duration::from_secs(9)), Some(2));
    }

    #[test]
    fn each_address_has_its_turn_and_a_crowd_of_them_is_not_remembered() {
        let start = Instant::now();
        let address = |n: u16| SocketAddr::from(([192, 0, 2, 1], n));
        let mut news = News::default();
        let told = (0..1000).filter(|_| news.admit(address(1), start)).count();
        assert_eq!((told, news.admit(address(2), start)), (1, true));
        assert!(!news.admit(address(1), start + APART / 2));
        assert!(news.admit(address(1), start + APART));
        let told = (0..5000).filter(|n| news.admit(address(*n), start + APART)).count();
        assert!(told <= REMEMBERED && news.0.len() <= REMEMBERED, "{told}");
        assert!(news.admit(address(4000), start + 2 * APART), "a moment later there is room");
    }
}
