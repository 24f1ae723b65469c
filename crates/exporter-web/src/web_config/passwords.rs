//! Passwords (HTTP basic authentication).
//!
//! bcrypt is slow on purpose: a check takes 50 ms of a core and more. So the results are kept, and checks run one at a
//! time in a thread, with a bounded queue: a client that guesses passwords holds up neither the scrapers that have given
//! theirs before nor anything else.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bcrypt::HashParts;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::hmac;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, oneshot};

use crate::error::Problem;
use crate::protection::Refusal;

/// How many results are kept, of each kind.
const KEPT: usize = 256;

/// How many checks may wait or run.
const QUEUE: usize = 32;

/// bcrypt's tables have 4 KiB.
const STACK: usize = 128 << 10;

/// Checks passwords, and remembers the results.
pub struct Passwords {
    /// Names the results. It is made at the start and nobody knows it, so no password is kept, and how long a
    /// comparison takes tells nothing.
    key: hmac::Key,
    known: Arc<Mutex<Known>>,
    queue: Arc<Semaphore>,
    /// Held by the thread that checks.
    turn: Arc<AsyncMutex<()>>,
}

#[derive(Default)]
struct Known {
    right: HashSet<Name>,
    wrong: HashSet<Name>,
}

/// A user, hash and password, as a keyed hash of all three.
type Name = [u8; 32];

impl Passwords {
    pub fn new() -> Result<Self, Problem> {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| Problem::NoRandomNumbers)?;
        Ok(Self {
            key,
            known: Arc::default(),
            queue: Arc::new(Semaphore::new(QUEUE)),
            turn: Arc::default(),
        })
    }

    /// Whether the request comes from one of the users. `users` must not be empty.
    pub async fn admit(&self, users: &BTreeMap<String, String>, headers: &HeaderMap) -> Result<(), Refusal> {
        let (user, password) = credentials(headers).ok_or(Refusal::Unauthorized)?;
        let known_user = users.get(&user);
        // For an unknown user another user's hash is checked: that takes as long, and does not tell
        // which users there are.
        let hash = known_user
            .or(users.values().next())
            .ok_or(Refusal::Unauthorized)?;
        let name = self.name(&user, known_user.is_some(), hash, &password);
        let known = lock(&self.known).recall(&name);
        let right = match known {
            Some(right) => right,
            None => {
                self.check(name, password, hash.clone(), known_user.is_some())
                    .await?
            }
        };
        if right { Ok(()) } else { Err(Refusal::Unauthorized) }
    }

    /// Compares a password with a hash. The place in the queue and the turn belong to the thread: a client that hangs
    /// up frees neither while bcrypt still runs.
    async fn check(
        &self,
        name: Name,
        password: Vec<u8>,
        hash: String,
        known_user: bool,
    ) -> Result<bool, Refusal> {
        let place = self
            .queue
            .clone()
            .try_acquire_owned()
            .map_err(|_| Refusal::Busy)?;
        let turn = self.turn.clone().lock_owned().await;
        // Somebody may have asked the same in the meantime.
        if let Some(right) = lock(&self.known).recall(&name) {
            return Ok(right);
        }
        let known = self.known.clone();
        let (answer, right) = oneshot::channel();
        // Not tokio's pool, whose threads the end of the program would wait for: one of cost 18 takes 15 s.
        let thread = std::thread::Builder::new()
            .name("bcrypt".to_string())
            .stack_size(STACK);
        let started = thread.spawn(move || {
            let right = bcrypt::verify(password, &hash).unwrap_or(false) && known_user;
            lock(&known).remember(name, right);
            drop((turn, place));
            let _ = answer.send(right);
        });
        started.map_err(|_| Refusal::Busy)?;
        right.await.map_err(|_| Refusal::Busy)
    }

    fn name(&self, user: &str, is_known: bool, hash: &str, password: &[u8]) -> Name {
        let mut context = hmac::Context::with_key(&self.key);
        // The hash that stands in for an unknown user's may be that user's own one day.
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
}

impl Known {
    fn recall(&self, name: &Name) -> Option<bool> {
        if self.right.contains(name) {
            Some(true)
        } else {
            self.wrong.contains(name).then_some(false)
        }
    }

    /// Right and wrong ones have room of their own: guessing drives out nobody who has a right one.
    fn remember(&mut self, name: Name, right: bool) {
        let kept = if right { &mut self.right } else { &mut self.wrong };
        if kept.len() >= KEPT
            && let Some(any) = kept.iter().next().copied()
        {
            kept.remove(&any);
        }
        kept.insert(name);
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the text is a bcrypt hash.
pub fn is_hash(text: &str) -> bool {
    HashParts::from_str(text).is_ok_and(|parts| (4..=31).contains(&parts.get_cost()))
}

/// The user and the password that a request brings.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let mut parts = decoded.splitn(2, |byte| *byte == b':');
    let (user, password) = (parts.next()?, parts.next()?);
    Some((String::from_utf8(user.to_vec()).ok()?, password.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use std::time::{Duration, Instant};

    /// What crypt(3) makes of `builder`, at the lowest cost so that the tests are quick.
    const BUILDER: &str = "$2y$04$LBYa0lJ0GtfEWl8LNN/IEuGRioK7L4Ys9Eg5j9wNC6qtJstaPg53e";

    fn request(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        headers
    }

    fn encode(text: &str) -> String {
        BASE64_STANDARD.encode(text)
    }

    fn basic(user: &str, password: &str) -> HeaderMap {
        request(&format!("Basic {}", encode(&format!("{user}:{password}"))))
    }

    fn users(hash: &str) -> Arc<BTreeMap<String, String>> {
        Arc::new(BTreeMap::from([("bob".to_string(), hash.to_string())]))
    }

    #[tokio::test]
    async fn admits_who_knows_the_password_and_nobody_else() {
        let passwords = Passwords::new().unwrap();
        let users = users(BUILDER);
        for _ in 0..2 {
            for headers in [
                basic("bob", "builder"),
                request(&format!("basic  {}", encode("bob:builder"))),
            ] {
                assert_eq!(passwords.admit(&users, &headers).await, Ok(()), "{headers:?}");
            }
            for headers in [
                HeaderMap::new(),
                basic("bob", "Builder"),
                basic("bob", ""),
                basic("", "builder"),
                basic("eve", "builder"),
                basic("bob", "builder:"),
                request("Basic"),
                request("Basic !!!"),
                request(&format!("Basic {}", encode("bob"))),
                request(&format!("Bearer {}", encode("bob:builder"))),
            ] {
                let refused = passwords.admit(&users, &headers).await;
                assert_eq!(refused, Err(Refusal::Unauthorized), "{headers:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_changed_hash_is_asked_anew() {
        let passwords = Passwords::new().unwrap();
        let headers = basic("bob", "builder");
        assert_eq!(passwords.admit(&users(BUILDER), &headers).await, Ok(()));
        let changed = users(&bcrypt::hash("other", 4).unwrap());
        let refused = passwords.admit(&changed, &headers).await;
        assert_eq!(refused, Err(Refusal::Unauthorized));
        assert_eq!(passwords.admit(&changed, &basic("bob", "other")).await, Ok(()));
    }

    #[tokio::test]
    async fn guesses_are_kept_and_drive_out_no_right_password() {
        let passwords = Passwords::new().unwrap();
        let users = users(BUILDER);
        passwords.admit(&users, &basic("bob", "builder")).await.unwrap();
        for number in 0..2 * KEPT {
            let guess = basic("bob", &format!("guess {number}"));
            assert_eq!(passwords.admit(&users, &guess).await, Err(Refusal::Unauthorized));
        }
        assert_eq!(lock(&passwords.known).wrong.len(), KEPT);
        assert_eq!(lock(&passwords.known).right.len(), 1);
        // Without a check: one would wait for its turn, which is taken.
        let _turn = passwords.turn.lock().await;
        assert_eq!(passwords.admit(&users, &basic("bob", "builder")).await, Ok(()));
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_holds_up_nobody_whose_password_is_known() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let users = users(&bcrypt::hash("x", 11).unwrap());
        passwords.admit(&users, &basic("bob", "x")).await.unwrap();
        let mut guesses = tokio::task::JoinSet::new();
        for number in 0..QUEUE + 10 {
            let (passwords, users) = (passwords.clone(), users.clone());
            guesses.spawn(async move { passwords.admit(&users, &basic("bob", &number.to_string())).await });
        }
        tokio::task::yield_now().await;
        let started = Instant::now();
        assert_eq!(passwords.admit(&users, &basic("bob", "x")).await, Ok(()));
        assert!(started.elapsed().as_millis() < 50, "{:?}", started.elapsed());
        for _ in 0..10 {
            let refused = guesses.join_next().await.unwrap().unwrap();
            assert_eq!(refused, Err(Refusal::Busy));
        }
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_does_not_free_what_its_check_uses() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let users = users(&bcrypt::hash("x", 11).unwrap());
        for number in 0..5 {
            let headers = basic("bob", &number.to_string());
            let guess = passwords.admit(&users, &headers);
            let gave_up = tokio::time::timeout(Duration::from_millis(1), guess).await;
            assert!(gave_up.is_err());
        }
        // The first one's thread runs; the others never got a turn, and wait no more.
        assert!(passwords.turn.try_lock().is_err());
        assert_eq!(passwords.queue.available_permits(), QUEUE - 1);
        let _turn = passwords.turn.lock().await;
        assert_eq!(
            lock(&passwords.known).wrong.len(),
            1,
            "its result is kept all the same"
        );
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
