//! Certificates of a dump: chains are in it, private keys are redacted.
//!
//! What a dump does not hold (a file of Envoy's host, a Secret that was not dumped) Envoy still has:
//! a listener that serves has all its certificates. So the handshake is taken to succeed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::certificate::Certificate;
use crate::plan::{PlannedListener, PlannedSecret, ResourceName};
use crate::proxy::{DownstreamTls, Listener};

/// Leaves each chain the certificates that are known, and lets it do without those that are not.
pub(super) fn assume_unknown(
    listeners: &mut BTreeMap<ResourceName, Arc<PlannedListener>>,
    secrets: &BTreeMap<ResourceName, Arc<PlannedSecret>>,
) {
    for listener in listeners.values_mut() {
        let mut model = Listener::clone(&listener.model);
        let chains = model.filter_chains.iter_mut();
        for chain in chains.chain(model.default_filter_chain.as_mut()) {
            if let Some(tls) = &mut chain.tls {
                assume(tls, secrets);
            }
        }
        Arc::make_mut(listener).model = Arc::new(model);
    }
}

fn assume(tls: &mut DownstreamTls, secrets: &BTreeMap<ResourceName, Arc<PlannedSecret>>) {
    tls.secrets.retain(|name| {
        let secret = secrets.get(name.as_str());
        secret.is_some_and(|secret| secret.certificate.is_ok())
    });
    tls.inline.retain(|pem| Certificate::from_pem(pem).is_ok());
    tls.assumed = tls.secrets.is_empty() && tls.inline.is_empty();
}
