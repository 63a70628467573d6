//! Which implementation runs, decided once.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::self_test;
#[cfg(target_arch = "x86_64")]
use crate::{avx2, avx512};

/// The environment variable that forces a backend by name, for tests.
const VARIABLE: &str = "VGW_AEAD_BACKEND";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Our kernels on AVX-512 with IFMA, VAES and VPCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Our kernels on AVX2 with VAES and VPCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Avx2Vaes,
    /// Our kernels on AVX2 with AES-NI and PCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The libraries, on every processor.
    Portable,
}

impl Kind {
    /// Best first.
    const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2Vaes,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        Self::Portable,
    ];

    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vaes => "avx2-vaes",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    fn is_supported(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::is_supported(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vaes => avx2::is_supported() && avx2::has_vaes(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::is_supported(),
            Self::Portable => true,
        }
    }
}

/// An implementation that this processor can run: whoever holds a value may call it.
///
/// [`backend()`] picks the best. Another one is forced by the environment variable
/// `VGW_AEAD_BACKEND` with its name, or by [`force_backend`]; both are meant for tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Backend(Kind);

impl Backend {
    /// The backend of every processor.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// All that this processor has, best first.
    pub fn available() -> impl Iterator<Item = Self> {
        Kind::ALL.iter().copied().filter(|kind| kind.is_supported()).map(Self)
    }

    /// Its name, as `Display` prints it and `FromStr` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({self})")
    }
}

/// No backend of that name, or not on this processor.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no AEAD backend \"{name}\" on this processor; there are: {available}")]
pub struct UnknownBackend {
    /// The name asked for.
    pub name: String,
    /// The names that would have been right.
    pub available: String,
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        Self::available().find(|backend| backend.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::available().map(Self::name).collect();
            UnknownBackend { name: name.to_owned(), available: names.join(", ") }
        })
    }
}

struct Probe {
    chosen: Backend,
    refused: Vec<Backend>,
}

static PROBE: OnceLock<Probe> = OnceLock::new();

/// 0: not forced; otherwise one more than the index in `Kind::ALL`.
static FORCED: AtomicU8 = AtomicU8::new(0);

/// The backend that [`crate::seal_batch`] and [`crate::open_batch`] use.
///
/// Chosen at the first call: the one that `VGW_AEAD_BACKEND` names if this processor has it,
/// otherwise the best one that passes the self test.
pub fn backend() -> Backend {
    match FORCED.load(Ordering::Relaxed) {
        0 => PROBE.get_or_init(probe).chosen,
        forced => {
            Kind::ALL.get(usize::from(forced) - 1).map_or(Backend::PORTABLE, |&kind| Backend(kind))
        }
    }
}

/// Makes every later batch of this process use `backend`; `None` gives the choice back.
pub fn force_backend(backend: Option<Backend>) {
    let index = backend.and_then(|backend| Kind::ALL.iter().position(|&kind| kind == backend.0));
    FORCED.store(index.map_or(0, |index| index as u8 + 1), Ordering::Relaxed);
}

/// The backends that the processor has but that failed the self test. Empty on a sound machine.
pub fn refused_backends() -> &'static [Backend] {
    &PROBE.get_or_init(probe).refused
}

fn probe() -> Probe {
    let forced = std::env::var(VARIABLE).ok().and_then(|name| name.parse().ok());
    choose(forced.into_iter().chain(Backend::available()), self_test::passes)
}

/// The first of `candidates` that passes.
fn choose(candidates: impl Iterator<Item = Backend>, passes: impl Fn(Backend) -> bool) -> Probe {
    let mut refused = Vec::new();
    for candidate in candidates {
        if passes(candidate) {
            return Probe { chosen: candidate, refused };
        }
        refused.push(candidate);
    }
    Probe { chosen: Backend::PORTABLE, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_backend_passes_the_self_test() {
        for backend in Backend::available() {
            assert!(self_test::passes(backend), "{backend}");
        }
        assert_eq!(refused_backends(), []);
    }

    #[test]
    fn names_go_there_and_back() {
        for backend in Backend::available() {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        let error = "abacus".parse::<Backend>().unwrap_err().to_string();
        assert!(error.contains("\"abacus\"") && error.contains("portable"), "{error}");
    }

    #[test]
    fn a_forced_backend_is_used_until_it_is_given_back() {
        let chosen = backend();
        for forced in Backend::available() {
            force_backend(Some(forced));
            assert_eq!(backend(), forced);
        }
        force_backend(None);
        assert_eq!(backend(), chosen);
    }

    #[test]
    fn a_backend_that_fails_the_self_test_is_passed_over() {
        let all: Vec<Backend> = Backend::available().collect();
        for faulty in 0..all.len() {
            let probe = choose(Backend::available(), |backend| !all[..=faulty].contains(&backend));
            assert_eq!(probe.refused, all[..=faulty]);
            assert_eq!(probe.chosen, *all.get(faulty + 1).unwrap_or(&Backend::PORTABLE));
        }
    }
}
