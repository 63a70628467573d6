//! The order in which a SIMD backend takes the packets of a batch.

/// Jobs looked at together. Bounds the memory on the stack and the cost of ordering.
pub(crate) const WINDOW: usize = 64;

/// The indexes of a window that needs no ordering.
pub(crate) const IN_ORDER: [u8; WINDOW] = {
    let mut indexes = [0; WINDOW];
    let mut i = 0;
    while i < WINDOW {
        indexes[i] = i as u8;
        i += 1;
    }
    indexes
};

/// Indexes of jobs in a window.
pub(crate) struct Picks {
    indexes: [u8; WINDOW],
    len: usize,
}

impl Picks {
    pub(crate) fn new() -> Self {
        Self { indexes: [0; WINDOW], len: 0 }
    }

    /// Appends the job at `index`, below [`WINDOW`].
    #[inline]
    pub(crate) fn push(&mut self, index: usize) {
        self.indexes[self.len] = index as u8;
        self.len += 1;
    }

    /// Puts the longest packets first, so that packets that run side by side end together. Lengths
    /// are public. Linear for equal lengths, the usual case.
    pub(crate) fn sort_longest_first(&mut self, len: impl Fn(usize) -> usize) {
        let indexes = &mut self.indexes[..self.len];
        for i in 1..indexes.len() {
            let moving = indexes[i];
            let moving_len = len(usize::from(moving));
            let mut place = i;
            while place > 0 && len(usize::from(indexes[place - 1])) < moving_len {
                indexes[place] = indexes[place - 1];
                place -= 1;
            }
            indexes[place] = moving;
        }
    }

    /// Takes out the first job and all others of the same kind, in their order.
    pub(crate) fn take_alike(&mut self, alike: impl Fn(usize, usize) -> bool) -> Option<Self> {
        let first = usize::from(*self.as_slice().first()?);
        let (mut taken, mut left) = (Self::new(), 0);
        for i in 0..self.len {
            let index = self.indexes[i];
            if alike(first, usize::from(index)) {
                taken.push(usize::from(index));
            } else {
                self.indexes[left] = index;
                left += 1;
            }
        }
        self.len = left;
        Some(taken)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.indexes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_one_key_are_taken_together() {
        let keys = [1, 2, 1, 3, 2, 1];
        let mut picks = Picks::new();
        (0..keys.len()).for_each(|index| picks.push(index));
        let mut runs = Vec::new();
        while let Some(run) = picks.take_alike(|a, b| keys[a] == keys[b]) {
            runs.push(run.as_slice().to_vec());
        }
        assert_eq!(runs, [vec![0, 2, 5], vec![1, 4], vec![3]]);
    }

    #[test]
    fn sorting_keeps_every_job_and_orders_lengths() {
        let lens = [5, 1400, 40, 40, 1400, 0, 9000];
        let mut picks = Picks::new();
        (0..lens.len()).for_each(|index| picks.push(index));
        picks.sort_longest_first(|index| lens[index]);
        assert_eq!(picks.as_slice(), [6, 1, 4, 2, 3, 0, 5]);
    }
}
