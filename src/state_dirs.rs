//! Whether the state directories can be read without waiting for a server that is gone. On such a mount looking at a
//! directory never ends, and nothing interrupts it: so another thread looks first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use go_duration as duration;
use shimstat::node::{Node, usual_places};
use tokio::sync::{Mutex, oneshot};

use crate::exit::{Failure, PLACES};
use crate::local_path::is_local;

/// The state directories that a user gave; none: the usual ones.
pub struct StateDirs {
    given: Vec<PathBuf>,
    /// A look that had not come back in time.
    looking: Mutex<Option<oneshot::Receiver<()>>>,
}

impl StateDirs {
    pub fn new(given: Vec<PathBuf>) -> Self {
        Self {
            given,
            looking: Mutex::default(),
        }
    }

    /// The node, where its directories answer within the limit.
    pub fn node(&self, namespace: Option<String>, limit: Duration) -> Result<Node, Failure> {
        let given = self.given.clone();
        let node = || Node::new(given, namespace);
        // A thread costs a tenth of a short question.
        if self.are_local() {
            return Ok(node());
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.look(move || {
            let node = node();
            node.is_there();
            let _ = sender.send(node);
        })?;
        receiver.recv_timeout(limit).map_err(|_| self.silent(limit))
    }

    /// Waits until the node's directories have answered, at most for the limit. Where a look before has not come back yet,
    /// it is not waited for again.
    pub async fn answer(&self, node: &Node, limit: Duration) -> Result<(), Failure> {
        if self.are_local() {
            return Ok(());
        }
        let mut looking = self.looking.lock().await;
        if let Some(before) = looking.as_mut()
            && before.try_recv() == Err(oneshot::error::TryRecvError::Empty)
        {
            return Err(self.silent(limit));
        }
        let (sender, mut receiver) = oneshot::channel();
        let node = node.clone();
        self.look(move || {
            node.is_there();
            let _ = sender.send(());
        })?;
        let answer = tokio::time::timeout(limit, &mut receiver).await;
        *looking = answer.is_err().then_some(receiver);
        answer.map(drop).map_err(|_| self.silent(limit))
    }

    fn look(&self, look: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let started = std::thread::Builder::new().spawn(look);
        started
            .map(drop)
            .map_err(|error| self.failure(&format!("cannot be looked at: {error}")))
    }

    fn are_local(&self) -> bool {
        match &self.given[..] {
            // Each user's directory is a mount, and has what that user has mounted there.
            [] => is_local(Path::new("/run/user")) && usual_places().all(|(path, _)| is_local(&path)),
            given => given.iter().all(|path| is_local(path)),
        }
    }

    fn silent(&self, limit: Duration) -> Failure {
        self.failure(&format!(
            "has not answered for {}: it may be on a mount whose server is gone",
            duration::show(limit)
        ))
    }

    fn failure(&self, text: &str) -> Failure {
        let given: Vec<_> = self.given.iter().map(|path| path.to_string_lossy()).collect();
        let shown = match given.is_empty() {
            true => "the usual state directories".to_string(),
            false => given.join(", "),
        };
        Failure::new(format!("no containers: {shown}: {text}")).and(PLACES)
    }
}
