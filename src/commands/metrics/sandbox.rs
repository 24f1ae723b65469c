//! The sandbox whose metrics are asked for: finding it, and what can be wrong with it.

use go_duration as duration;
use shimstat::node::{Bundle, Id, Inventory, Role, monitor};
use shimstat::shim::{ShimError, address::Address, dial_text};
use shimstat::survey::{AskError, Lane, NotRunning, Scrape, ScrapeError};

use super::super::find::{self, Found};
use super::super::{Context, with_remedy};
use crate::exit::Failure;
use crate::output;

const PATH: &str = "/metrics";

/// The sandbox that is asked about.
pub struct Sandbox {
    pub id: Id,
    /// `None` where containerd's state does not know it.
    pub bundle: Option<Bundle>,
    /// What was found instead of a sandbox, where that explains why there is no monitor.
    found: Option<String>,
}

impl Sandbox {
    pub async fn find(context: &Context, given: &str) -> Result<Self, Failure> {
        let wanted = find::wanted(given)?;
        let mut inventory = Inventory::new(context.node.clone());
        match find::task(context, &mut inventory, &wanted, given).await? {
            Found::Task(bundle) => Self::of(context, bundle),
            Found::Nothing(looked) => match wanted.id() {
                Some(id) => Self::without_bundle(id.clone(), looked),
                None => Err(Failure::new(format!("Sandbox ({given}) does not exist")).and(looked)),
            },
        }
    }

    /// The sandbox of a task: itself, or the one that it runs in.
    fn of(context: &Context, bundle: Bundle) -> Result<Self, Failure> {
        context.note(|| format!("task {}: bundle {}", bundle.id, bundle.path.display()));
        let role = match bundle.spec() {
            Ok(spec) => spec.annotations.role(&bundle.id),
            Err(error) => return Err(with_remedy(format!("container {}: {error}", bundle.id))),
        };
        let id = Id::parse(&bundle.id).map_err(|e| Failure::new(format!("task {:?}: {e}", bundle.id)))?;
        match role {
            Role::Sandbox => Ok(Self {
                id,
                bundle: Some(bundle),
                found: None,
            }),
            Role::Plain => {
                let found =
                    format!("container {id} is in no sandbox, and has no monitor of its own: see its events");
                Ok(Self {
                    id,
                    bundle: Some(bundle),
                    found: Some(found),
                })
            }
            Role::InSandbox(sandbox) => {
                let sandbox = Id::parse(&sandbox).map_err(|error| {
                    Failure::new(format!(
                        "container {id}: its annotations name the sandbox {sandbox:?}: {error}"
                    ))
                })?;
                output::notice(&format!(
                    "container {id} runs in sandbox {sandbox}: these are the sandbox's metrics"
                ));
                let bundle = context.node.sibling(&bundle, &sandbox);
                Ok(Self {
                    id: sandbox,
                    bundle,
                    found: None,
                })
            }
        }
    }

    /// containerd does not know it, but its monitor's socket may be there.
    fn without_bundle(wanted: Id, looked: String) -> Result<Self, Failure> {
        let below = monitor::sandboxes(wanted.as_str()).map_err(|error| with_remedy(error.to_string()))?;
        let ids: Vec<_> = below.keys().collect();
        let id = match ids.as_slice() {
            _ if below.contains_key(wanted.as_str()) => wanted,
            [] => wanted,
            [only] => Id::parse(only).map_err(|e| Failure::new(format!("sandbox {only:?}: {e}")))?,
            several => {
                let mut failure = Failure::new(format!("multiple containers found ({wanted})"));
                for id in several {
                    failure = failure.and(format!("  {id}"));
                }
                return Err(failure.and("give more of the id"));
            }
        };
        Ok(Self {
            id,
            bundle: None,
            found: Some(looked),
        })
    }

    /// The body of its monitor's answer. `addresses` are those at which it may listen.
    pub async fn scrape(
        &self,
        context: &Context,
        addresses: &[Address],
        force: bool,
    ) -> Result<Vec<u8>, ScrapeError> {
        context.note(|| {
            let places: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!("sandbox {}: its monitor may be at {}", self.id, places.join(", "))
        });
        let scrape = Scrape {
            sandbox: self.id.as_str(),
            addresses,
            path: PATH,
            force,
        };
        let (address, body) = scrape.run(context.timeout).await?;
        context.note(|| format!("sandbox {}: {address} sent {} bytes", self.id, body.len()));
        Ok(body)
    }

    /// Where its monitor may listen.
    pub fn addresses(&self) -> Result<Vec<Address>, Failure> {
        let namespace = self.bundle.as_ref().map(|bundle| bundle.namespace.as_str());
        monitor::candidates(self.id.as_str(), namespace, self.bundle.as_ref())
            .map_err(|error| with_remedy(format!("sandbox {}: {error}", self.id)))
    }

    /// A stopped sandbox is not running, even where its shim still serves its own families; and a shim that
    /// does not answer State is not asked for more. A shim that is gone is left for its monitor to tell.
    pub async fn check_running(&self, context: &Context) -> Result<(), Failure> {
        let Some(bundle) = &self.bundle else { return Ok(()) };
        let endpoint = bundle
            .endpoint()
            .map_err(|e| with_remedy(format!("sandbox {}: {e}", self.id)))?;
        let Some(endpoint) = endpoint else {
            let path = bundle.path.display();
            return Err(Failure::new(format!(
                "sandbox {} is being created: no shim is named in {path}",
                self.id
            )));
        };
        context.note(|| {
            format!(
                "sandbox {}: shim {} ({:?})",
                self.id, endpoint.address, endpoint.version
            )
        });
        let lane = Lane::new(endpoint, context.timeout);
        match lane.running(self.id.as_str()).await {
            Ok(_) | Err(AskError::NotRunning(NotRunning::Gone(_))) => Ok(()),
            Err(AskError::NotRunning(why)) => {
                Err(Failure::new(format!("sandbox {} is not running: {why}", self.id)))
            }
            Err(error @ AskError::Unanswered { .. }) => {
                Err(Failure::new(format!("sandbox {}: {error}", self.id)).and(patience(context)))
            }
            Err(error) => Err(with_remedy(format!("sandbox {}: {error}", self.id))),
        }
    }

    pub fn failure(&self, error: &ScrapeError, context: &Context) -> Failure {
        let id = &self.id;
        match error {
            // The words of Go's HTTP client, which users of Kata's own `metrics` know.
            ScrapeError::Shim(ShimError::Connect { address, source }) => {
                let text = format!(
                    "Get \"http://shim{PATH}\": dial unix {address}: connect: {}",
                    dial_text(source)
                );
                let failure = with_remedy(text);
                match &self.found {
                    Some(found) => failure.and(found),
                    None => failure,
                }
            }
            ScrapeError::Unanswered { .. } => {
                Failure::new(format!("sandbox {id}: {error}")).and(patience(context))
            }
            ScrapeError::Risk(_) => Failure::new(format!("sandbox {id} was not asked: {error}"))
                .and("--force asks all the same, and risks the sandbox with everything in it"),
            _ => with_remedy(format!("sandbox {id}: {error}")),
        }
    }
}

/// What to do about a shim that keeps silent.
fn patience(context: &Context) -> String {
    format!(
        "the shim may be stopped, or its guest hung; wait longer than {} with --timeout (Kata gives up on a hung \
         guest after 10 to 60s)",
        duration::show(context.timeout)
    )
}
