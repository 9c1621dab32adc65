//! Where a filter chain terminates TLS: which certificate a client is shown.
//!
//! Of several, Envoy shows the first that covers the server name, else the first (Envoy,
//! "TLS: certificate selection"; key types are not told apart). A certificate that has not been
//! fetched is none: the connection is closed.

use std::sync::Arc;

use nodeway_core::certificate::Certificate;
use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::proxy::DownstreamTls;
use nodeway_core::trace::HandshakeStep;

use super::NodeProxy;
use crate::http::{Hello, server_flight};

/// A certificate of a chain, and the object that has it, where one does.
type Candidate = (Option<ObjectRef>, Arc<Certificate>);

impl NodeProxy {
    /// Whose proxy it is: that of a node, or of a pod.
    fn host(&self) -> ObjectRef {
        match self.pod.as_deref().and_then(|pod| pod.split_once('/')) {
            Some((namespace, name)) => ObjectRef::new(Kind::Pod, namespace, name),
            None => ObjectRef::cluster(Kind::Node, &*self.node),
        }
    }

    /// What a client is answered, and the records of that answer; none where the handshake fails.
    pub(super) fn handshake(
        &self,
        tls: &DownstreamTls,
        hello: &Hello,
    ) -> (HandshakeStep, Option<Vec<u8>>) {
        let mut step = HandshakeStep {
            by: self.host(),
            server_name: hello.server_name.clone(),
            certificate: None,
            names: Vec::new(),
            covers: false,
            failed: None,
        };
        let candidates = match self.certificates(tls, &mut step) {
            Ok(candidates) => candidates,
            Err(why) => {
                step.failed = Some(why);
                return (step, None);
            }
        };
        let covering = candidates
            .iter()
            .find(|(_, certificate)| certificate.covers(&hello.server_name));
        let Some((source, certificate)) = covering.or(candidates.first()) else {
            if tls.assumed {
                step.covers = true;
                let flight = server_flight(hello, &tls.protocols, std::iter::empty());
                return (step, Some(flight));
            }
            step.failed = Some("the filter chain names no certificate".to_owned());
            return (step, None);
        };
        step.certificate.clone_from(source);
        step.names = certificate.names();
        step.covers = certificate.covers(&hello.server_name);
        let flight = server_flight(hello, &tls.protocols, certificate.chain());
        (step, Some(flight))
    }

    /// Every certificate of a chain; why there is none as soon as one is missing, since Envoy has
    /// no context to answer with before it has them all.
    fn certificates(
        &self,
        tls: &DownstreamTls,
        step: &mut HandshakeStep,
    ) -> Result<Vec<Candidate>, String> {
        let mut candidates = Vec::new();
        for name in &tls.secrets {
            let Some(planned) = self.resources.secrets.get(name.as_str()) else {
                return Err(format!(
                    "Envoy has no certificate `{name}`: its Secret is missing"
                ));
            };
            match &planned.certificate {
                Ok(it) => candidates.push((Some(planned.source.clone()), Arc::clone(it))),
                Err(none) => {
                    step.certificate = Some(planned.source.clone());
                    let (source, field) = (&planned.source, &none.field);
                    return Err(format!(
                        "{source} has no certificate in {field}: {}",
                        none.error
                    ));
                }
            }
        }
        for pem in &tls.inline {
            let certificate = Certificate::from_pem(pem).map_err(|it| it.to_string())?;
            candidates.push((None, Arc::new(certificate)));
        }
        Ok(candidates)
    }
}
