//! Who of several is the one that writes: whoever holds a Lease, and renews it in time.
//!
//! As Kubernetes' own components do it: one that was not renewed for as long as it says *since this
//! process saw it change* is free; nobody's clock is compared with another's.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::clock::Clock;

/// For how long a Lease holds without being renewed.
pub(crate) const HOLDS: Duration = Duration::from_secs(15);
/// How often it is renewed, and looked at by who waits for it.
pub(crate) const RENEWED: Duration = Duration::from_secs(5);

/// A Lease that this process has or waits for.
pub(crate) struct Leader {
    api: Api<Lease>,
    name: String,
    me: String,
    clock: Clock,
    /// What was seen last, and when it became so.
    seen: Option<(Option<String>, Duration)>,
}

impl Leader {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, me: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: me.to_owned(),
            clock: Clock::start(),
            seen: None,
        }
    }

    /// Takes or renews it, if it is free or ours; says whether we have it.
    ///
    /// # Errors
    /// When the API server does not answer: whoever had it has it no more when [`HOLDS`] is over.
    pub(crate) async fn hold(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            };
            let lease = self.renewed(metadata, None);
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|it| !it.is_empty());
        if holder.as_deref() != Some(&self.me)
            && !self.is_free(holder, lease.metadata.resource_version.clone())
        {
            return Ok(false);
        }
        let lease = self.renewed(lease.metadata, Some(spec));
        // By its version: of two that find it free, one is refused.
        taken(
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await,
        )
    }

    /// Gives it up, so that the next need not wait.
    pub(crate) async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.me) {
            spec.holder_identity = None;
            // Without it the next one waits until it has run out.
            let _ = self
                .api
                .replace(&self.name, &PostParams::default(), &lease)
                .await;
        }
    }

    fn is_free(&mut self, holder: Option<String>, version: Option<String>) -> bool {
        if holder.is_none() {
            return true;
        }
        let now = self.clock.now();
        match &self.seen {
            Some((seen, since)) if *seen == version => now.saturating_sub(*since) >= HOLDS,
            _ => {
                self.seen = Some((version, now));
                false
            }
        }
    }

    fn renewed(&self, metadata: ObjectMeta, before: Option<LeaseSpec>) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.me);
        let transitions = before.lease_transitions.unwrap_or(0);
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(HOLDS.as_secs()).ok(),
                acquire_time: if ours {
                    before.acquire_time
                } else {
                    now.clone()
                },
                lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
                renew_time: now,
                ..before
            }),
        }
    }
}

/// Whoever comes too late has it not.
fn taken(done: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    const CONFLICT: u16 = 409;
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(false),
        Err(error) => Err(error),
    }
}
