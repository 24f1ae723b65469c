//! Passwords (HTTP basic authentication).
//!
//! bcrypt is made to be slow: a check takes 50 ms of a core and more. So its results are kept, it runs in a thread
//! of its own, one at a time, and only so many may wait for it: whoever tries passwords holds up neither the
//! scrapers that have given theirs before nor anything else.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bcrypt::HashParts;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::hmac;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

/// How many results are kept, of each kind.
const KEPT: usize = 256;

/// How many checks may wait for the one that runs.
const WAITING: usize = 32;

/// bcrypt's tables have 4 KiB.
const STACK: usize = 128 << 10;

/// Why a client is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No password, or a wrong one.
    Unauthorized,
    /// Too many checks are waiting.
    Busy,
}

/// Checks passwords, and remembers what came of it.
pub struct Guard {
    /// Names what is remembered: with a key that is made at the start and known to nobody, so that neither a
    /// password is kept nor how long a comparison takes tells anything.
    key: hmac::Key,
    known: Mutex<Known>,
    waiting: AtomicUsize,
    /// Held by the check that runs.
    turn: AsyncMutex<()>,
}

#[derive(Default)]
struct Known {
    right: HashSet<Name>,
    wrong: HashSet<Name>,
}

/// An authenticated user, hash and password, as a keyed hash of all three.
type Name = [u8; 32];

impl Guard {
    pub fn new() -> Result<Self, String> {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| "no random numbers are to be had".to_string())?;
        Ok(Self {
            key,
            known: Mutex::default(),
            waiting: AtomicUsize::new(0),
            turn: AsyncMutex::new(()),
        })
    }

    /// Whether the request comes from one of the users. `users` must not be empty.
    pub async fn admit(&self, users: &BTreeMap<String, String>, headers: &HeaderMap) -> Result<(), Refusal> {
        let (user, password) = credentials(headers).ok_or(Refusal::Unauthorized)?;
        let known_user = users.get(&user);
        // For an unknown user another's hash is checked all the same: it takes as long, and so does not tell
        // which users there are.
        let hash = known_user
            .or(users.values().next())
            .ok_or(Refusal::Unauthorized)?;
        let name = self.name(&user, known_user.is_some(), hash, &password);
        if let Some(right) = self.recall(&name) {
            return verdict(right);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Busy);
        }
        let waiting = Waiting(&self.waiting);
        let turn = self.turn.lock().await;
        // Somebody before us may have asked the same.
        let right = match self.recall(&name) {
            Some(right) => right,
            None => {
                let right = check(password, hash.clone()).await && known_user.is_some();
                self.remember(name, right);
                right
            }
        };
        drop((turn, waiting));
        verdict(right)
    }

    fn name(&self, user: &str, is_known: bool, hash: &str, password: &[u8]) -> Name {
        let mut context = hmac::Context::with_key(&self.key);
        // The hash that an unknown user is held against may be that user's own one day.
        context.update(&[u8::from(is_known)]);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut name = Name::default();
        for (to, from) in name.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        name
    }

    fn recall(&self, name: &Name) -> Option<bool> {
        let known = self.known();
        if known.right.contains(name) {
            Some(true)
        } else {
            known.wrong.contains(name).then_some(false)
        }
    }

    /// Right ones and wrong ones have room of their own: trying passwords drives out nobody who has a right one.
    fn remember(&self, name: Name, right: bool) {
        let mut known = self.known();
        let kept = if right { &mut known.right } else { &mut known.wrong };
        if kept.len() >= KEPT {
            let any = kept.iter().next().copied();
            any.map(|any| kept.remove(&any));
        }
        kept.insert(name);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn verdict(right: bool) -> Result<(), Refusal> {
    if right { Ok(()) } else { Err(Refusal::Unauthorized) }
}

/// Whether the text is a bcrypt hash.
pub fn is_hash(text: &str) -> bool {
    HashParts::from_str(text).is_ok_and(|parts| (4..=31).contains(&parts.get_cost()))
}

/// Compares a password with a hash, in a thread that ends with it.
async fn check(password: Vec<u8>, hash: String) -> bool {
    let (done, right) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("bcrypt".to_string())
        .stack_size(STACK);
    let started = thread.spawn(move || {
        let _ = done.send(bcrypt::verify(password, &hash).unwrap_or(false));
    });
    started.is_ok() && right.await.unwrap_or(false)
}

/// The user and the password that a request brings.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(colon);
    Some((
        String::from_utf8(user.to_vec()).ok()?,
        password.get(1..)?.to_vec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use std::time::Instant;

    /// What crypt(3) makes of `builder`, at the lowest cost so that the tests are quick.
    const BUILDER: &str = "$2y$04$LBYa0lJ0GtfEWl8LNN/IEuGRioK7L4Ys9Eg5j9wNC6qtJstaPg53e";

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn request(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        headers
    }

    fn basic(user: &str, password: &str) -> HeaderMap {
        request(&format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{user}:{password}"))
        ))
    }

    fn users() -> BTreeMap<String, String> {
        BTreeMap::from([("bob".to_string(), BUILDER.to_string())])
    }

    #[test]
    fn admits_who_knows_the_password_and_nobody_else() {
        block_on(async {
            let guard = Guard::new().unwrap();
            for _ in 0..2 {
                assert_eq!(guard.admit(&users(), &basic("bob", "builder")).await, Ok(()));
                for headers in [
                    HeaderMap::new(),
                    basic("bob", "Builder"),
                    basic("bob", ""),
                    basic("", "builder"),
                    basic("eve", "builder"),
                    basic("bob", "builder:"),
                    request("Basic"),
                    request("Basic !!!"),
                    request(&format!("Basic {}", BASE64_STANDARD.encode("bob"))),
                    request(&format!("Bearer {}", BASE64_STANDARD.encode("bob:builder"))),
                ] {
                    let refused = guard.admit(&users(), &headers).await;
                    assert_eq!(refused, Err(Refusal::Unauthorized), "{headers:?}");
                }
            }
            let lower = request(&format!("basic  {}", BASE64_STANDARD.encode("bob:builder")));
            assert_eq!(guard.admit(&users(), &lower).await, Ok(()));
        });
    }

    #[test]
    fn a_changed_hash_is_asked_anew() {
        block_on(async {
            let guard = Guard::new().unwrap();
            assert_eq!(guard.admit(&users(), &basic("bob", "builder")).await, Ok(()));
            let hash = bcrypt::hash("other", 4).unwrap();
            let changed = BTreeMap::from([("bob".to_string(), hash)]);
            assert_eq!(
                guard.admit(&changed, &basic("bob", "builder")).await,
                Err(Refusal::Unauthorized)
            );
            assert_eq!(guard.admit(&changed, &basic("bob", "other")).await, Ok(()));
        });
    }

    #[test]
    fn results_are_kept_and_trying_passwords_drives_out_no_right_one() {
        block_on(async {
            let guard = Guard::new().unwrap();
            guard.admit(&users(), &basic("bob", "builder")).await.unwrap();
            for number in 0..2 * KEPT {
                let _ = guard
                    .admit(&users(), &basic("bob", &format!("guess {number}")))
                    .await;
            }
            assert_eq!(guard.known().wrong.len(), KEPT);
            assert_eq!(guard.known().right.len(), 1);
            // Without a check: one would take its turn, which is taken.
            let _turn = guard.turn.lock().await;
            assert_eq!(guard.admit(&users(), &basic("bob", "builder")).await, Ok(()));
        });
    }

    #[test]
    fn only_so_many_wait_and_nobody_is_held_up_by_them() {
        block_on(async {
            let guard = std::sync::Arc::new(Guard::new().unwrap());
            let slow = bcrypt::hash("x", 11).unwrap();
            let users = std::sync::Arc::new(BTreeMap::from([("bob".to_string(), slow)]));
            guard.admit(&users, &basic("bob", "x")).await.unwrap();
            let mut tries = tokio::task::JoinSet::new();
            for number in 0..WAITING + 10 {
                let (guard, users) = (guard.clone(), users.clone());
                tries.spawn(async move { guard.admit(&users, &basic("bob", &number.to_string())).await });
            }
            tokio::task::yield_now().await;
            let started = Instant::now();
            assert_eq!(guard.admit(&users, &basic("bob", "x")).await, Ok(()));
            assert!(started.elapsed().as_millis() < 50, "{:?}", started.elapsed());
            let mut busy = 0;
            while let Some(refused) = tries.join_next().await {
                busy += usize::from(refused.unwrap() == Err(Refusal::Busy));
                if busy == 10 {
                    break;
                }
            }
            assert_eq!(busy, 10);
        });
    }

    #[test]
    fn hashes_are_told_from_other_texts() {
        assert!(is_hash(BUILDER) && is_hash(&BUILDER.replace("$2y$", "$2b$")));
        for text in [
            "",
            "builder",
            "$1$x$y",
            "$2y$04$short",
            "$2y$40$LBYa0lJ0GtfEWl8LNN/IEuGRioK7L4Ys9Eg5j9wNC6qtJstaPg53e",
        ] {
            assert!(!is_hash(text), "{text}");
        }
    }
}
