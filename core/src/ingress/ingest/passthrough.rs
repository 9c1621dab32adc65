//! TLS that is passed through: only the host of a rule counts, and where its one path leads to.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{Ingress, IngressRule};

use super::Reader;
use crate::ingress::hostname::ANY;
use crate::ingress::model::{PassthroughListener, PassthroughRoute};
use crate::problem::{Code, Severity};

impl Reader<'_> {
    pub(super) fn passthrough(&mut self, ingress: &Ingress) {
        let Some(spec) = ingress.spec.as_ref() else {
            return;
        };
        if spec.default_backend.is_some() {
            self.problem(
                Code::BadBackend,
                Severity::Warning,
                "spec.defaultBackend".into(),
                "TLS that is passed through has no default backend, so it is left out".into(),
                "remove the default backend or the tls-passthrough annotation",
            );
        }
        let mut listeners = BTreeMap::new();
        for (at, rule) in spec.rules.iter().flatten().enumerate() {
            self.passthrough_rule(at, rule, &mut listeners);
        }
        self.ingested.model.tls_passthrough = listeners.into_values().collect();
    }

    fn passthrough_rule(
        &mut self,
        at: usize,
        rule: &IngressRule,
        listeners: &mut BTreeMap<String, PassthroughListener>,
    ) {
        let Some(host) = self.host(at, rule) else {
            return;
        };
        if host == ANY {
            self.problem(
                Code::BadHost,
                Severity::Error,
                format!("spec.rules[{at}].host"),
                "TLS that is passed through is told apart by its host, and this rule has none"
                    .into(),
                "name the host",
            );
            return;
        }
        let mut routes = Vec::new();
        for (field, path) in self.paths(at, rule) {
            if path.path.as_deref() != Some("/") {
                self.problem(
                    Code::BadPath,
                    Severity::Error,
                    format!("{field}.path"),
                    "TLS that is passed through has no path that could be read, so only `/` is taken".into(),
                    "set the path to `/`",
                );
                continue;
            }
            let Some(backend) = self.backend(&path.backend, &format!("{field}.backend")) else {
                continue;
            };
            self.claim(&host, None, format!("{field}.path"));
            routes.push(PassthroughRoute {
                name: String::new(),
                hostnames: vec![host.clone()],
                backends: vec![backend],
            });
        }
        if routes.is_empty() {
            return;
        }
        let listener = listeners
            .entry(host.clone())
            .or_insert_with(|| PassthroughListener {
                name: self.listener_name(&host),
                sources: vec![self.source.clone()],
                port: self.ports.passthrough,
                hostname: host,
                routes: Vec::new(),
                service: self.service.clone(),
            });
        listener.routes.extend(routes);
    }
}
