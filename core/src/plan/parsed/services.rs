//! The Services that a config names: what it leads to its listeners, and whose endpoints it asks for.

use std::sync::Arc;

use super::Parsed;
use crate::object::{EnvoyConfig, ObjectRef, ServiceListener};
use crate::plan::ResourceName;
use crate::problem::{Code, Severity};
use crate::service::ALL_PORTS;

/// One entry of `spec.services` or `spec.backendServices`.
#[derive(Clone, Debug)]
pub(in crate::plan) struct ServiceEntry {
    /// `spec.services[0]`
    pub(in crate::plan) field: String,
    /// Ports by number or name, each with its field; empty for all.
    pub(in crate::plan) ports: Vec<(String, String)>,
    /// What the Service is named for.
    pub(in crate::plan) purpose: Purpose,
}

/// What a config names a Service for.
#[derive(Clone, Debug)]
pub(in crate::plan) enum Purpose {
    /// `spec.services`: its packets are led to that listener; none if the config has no such one.
    Lead(Option<ResourceName>),
    /// `spec.backendServices`: Envoy gets its endpoints.
    Backend,
}

impl ServiceEntry {
    /// Whether it is one of `spec.services`.
    pub(in crate::plan) fn leads(&self) -> bool {
        matches!(self.purpose, Purpose::Lead(_))
    }

    /// Where its packets are led.
    pub(in crate::plan) fn listener(&self) -> Option<&ResourceName> {
        match &self.purpose {
            Purpose::Lead(listener) => listener.as_ref(),
            Purpose::Backend => None,
        }
    }

    /// The names under which its endpoints are given to Envoy, each with the port asked for.
    pub(in crate::plan) fn endpoint_names(
        &self,
        service: &ObjectRef,
    ) -> Vec<(ResourceName, String)> {
        let path = service.path();
        if self.ports.is_empty() {
            let all = ALL_PORTS.to_owned();
            return vec![
                (format!("{path}:*").into(), all.clone()),
                (path.into(), all),
            ];
        }
        self.ports
            .iter()
            .map(|(port, _)| (format!("{path}:{port}").into(), port.clone()))
            .collect()
    }
}

impl Parsed {
    pub(super) fn name_services(&mut self, config: &ObjectRef, source: &EnvoyConfig) {
        for (index, wanted) in source.spec.services.iter().enumerate() {
            self.lead(config, wanted, format!("spec.services[{index}]"));
        }
        for (index, wanted) in source.spec.backend_services.iter().enumerate() {
            let field = format!("spec.backendServices[{index}]");
            let ports = wanted.ports.iter().enumerate();
            let ports = ports
                .map(|(at, port)| (port.clone(), format!("{field}.number[{at}]")))
                .collect();
            let entry = ServiceEntry {
                field,
                ports,
                purpose: Purpose::Backend,
            };
            self.entry(wanted.service(config), entry);
        }
    }

    fn lead(&mut self, config: &ObjectRef, wanted: &ServiceListener, field: String) {
        let service = wanted.service(config);
        let (said, taken) = (&wanted.namespace, &service.namespace);
        if !said.is_empty() && said != taken {
            self.problem(
                Code::Unsupported,
                Severity::Warning,
                config,
                format!("{field}.namespace"),
                format!("a CiliumEnvoyConfig leads Services of its own namespace only: `{said}` is taken as `{taken}`"),
                "move the config to that namespace, or make it a CiliumClusterwideEnvoyConfig",
            );
        }
        let listener = self.listener_of(config, &field, &wanted.listener);
        let ports = wanted.ports.iter().enumerate();
        let ports = ports
            .map(|(at, port)| (port.to_string(), format!("{field}.ports[{at}]")))
            .collect();
        let entry = ServiceEntry {
            field,
            ports,
            purpose: Purpose::Lead(listener),
        };
        self.entry(service, entry);
    }

    fn entry(&mut self, service: ObjectRef, entry: ServiceEntry) {
        self.services.entry(service).or_default().push(entry);
    }

    /// The listener of that name, or the first one when none is named.
    fn listener_of(
        &mut self,
        config: &ObjectRef,
        field: &str,
        wanted: &str,
    ) -> Option<ResourceName> {
        let mut listeners = self.listeners.iter();
        let found = if wanted.is_empty() {
            listeners.next()
        } else {
            listeners.find(|listener| listener.short == wanted || *listener.name == *wanted)
        };
        if let Some(listener) = found {
            return Some(Arc::clone(&listener.name));
        }
        let has: Vec<&str> = self
            .listeners
            .iter()
            .map(|listener| listener.short.as_str())
            .collect();
        let (reason, fix) = match (wanted, has.as_slice()) {
            ("", _) => (
                "the config has no listener".to_owned(),
                "add a Listener to `spec.resources`".to_owned(),
            ),
            (_, []) => (
                format!("the config has no listener, so none named `{wanted}`"),
                "add that Listener to `spec.resources`".to_owned(),
            ),
            (_, has) => (
                format!("the config has no listener named `{wanted}`"),
                format!("name one that it has: {}", has.join(", ")),
            ),
        };
        self.problem(
            Code::MissingListener,
            Severity::Error,
            config,
            format!("{field}.listener"),
            reason,
            &fix,
        );
        None
    }
}
