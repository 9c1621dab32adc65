//! One Ingress becomes a [`Model`]: a listener per host, then again per host with TLS.
//!
//! A rule with a mistake is left out with a [`Problem`]; the others go on. Cilium's order and its
//! habits are kept, also those that surprise (see [`ingest`]).

mod passthrough;

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressTLS,
};

use super::annotations::{Annotations, Mistake};
use super::hostname::{self, ANY};
use super::model::{
    Backend, BackendPort, HttpListener, HttpRoute, Model, PathMatch, SecretName, ServiceWish,
    Source, Timeout,
};
use super::options::{Options, Ports};
use super::path;
use crate::object::ObjectRef;
use crate::problem::{Code, Problem, Severity};

/// What became of an Ingress.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ingested {
    /// What it asks for.
    pub model: Model,
    /// The hosts and paths it claims, with the fields that claim them.
    pub claims: Vec<Claim>,
    /// Its certificates, with the fields that name them.
    pub secrets: Vec<(SecretName, String)>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// A host and path that a rule claims.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The host, `*` for any.
    pub host: String,
    /// The path; none for a host whose TLS is passed through.
    pub path: Option<PathMatch>,
    /// The field's path.
    pub field: String,
}

/// Reads an Ingress. It does not ask whether the Ingress is ours.
///
/// Two habits of Cilium are kept because clients see them. An Ingress with a default backend or a
/// rule without a host serves *only that* on every TLS host, without the redirect to TLS: rules
/// of the host itself count in plain text only. A TLS entry without a certificate is served in
/// plain text on the TLS port.
#[must_use]
pub fn ingest(ingress: &Ingress, ports: Ports, options: &Options) -> Ingested {
    let mut reader = Reader::new(ingress, ports, options);
    if Annotations::of(ingress)
        .tls_passthrough()
        .noting(&mut reader.mistakes)
    {
        reader.passthrough(ingress);
    } else {
        reader.http(ingress);
    }
    reader.finish()
}

/// The reading of one Ingress.
struct Reader<'a> {
    object: ObjectRef,
    source: Source,
    ports: Ports,
    options: &'a Options,
    service: Option<ServiceWish>,
    ingested: Ingested,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    fn new(ingress: &Ingress, ports: Ports, options: &'a Options) -> Self {
        let object = super::reference(ingress);
        let source = Source {
            name: object.name.clone(),
            namespace: object.namespace.clone(),
            group: String::new(),
            version: "v1".into(),
            kind: "Ingress".into(),
            uid: ingress.metadata.uid.clone().unwrap_or_default(),
        };
        let mut mistakes = Vec::new();
        let service = service_wish(Annotations::of(ingress), &mut mistakes);
        Self {
            object,
            source,
            ports,
            options,
            service,
            ingested: Ingested::default(),
            mistakes,
        }
    }

    fn finish(mut self) -> Ingested {
        self.mistakes.dedup();
        let object = self.object;
        self.ingested.problems.extend(
            self.mistakes
                .into_iter()
                .map(|mistake| mistake.problem(&object)),
        );
        self.ingested
    }

    fn problem(
        &mut self,
        code: Code,
        severity: Severity,
        field: String,
        reason: String,
        fix: &str,
    ) {
        let object = self.object.clone();
        self.ingested.problems.push(Problem {
            code,
            severity,
            object,
            field,
            reason,
            fix: fix.to_owned(),
        });
    }

    fn listener_name(&self, host: &str) -> String {
        format!("ing-{}-{}-{host}", self.object.name, self.object.namespace)
    }

    fn http(&mut self, ingress: &Ingress) {
        let Some(spec) = ingress.spec.as_ref() else {
            return;
        };
        let annotations = Annotations::of(ingress);
        let timeout = Timeout {
            request: annotations
                .request_timeout()
                .noting(&mut self.mistakes)
                .or(self
                    .options
                    .request_timeout
                    .filter(|limit| !limit.is_zero())),
            backend: None,
        };
        let force_https = annotations
            .force_https()
            .noting(&mut self.mistakes)
            .unwrap_or(self.options.enforce_https);

        let mut insecure = BTreeMap::new();
        if let Some(backend) = &spec.default_backend {
            self.default_backend(backend, timeout, &mut insecure);
        }
        for (at, rule) in spec.rules.iter().flatten().enumerate() {
            self.rule(at, rule, timeout, &mut insecure);
        }
        let mut secure = BTreeMap::new();
        for (at, tls) in spec.tls.iter().flatten().enumerate() {
            self.tls(at, tls, force_https, &insecure, &mut secure);
        }
        self.ingested.model.http = insecure.into_values().chain(secure.into_values()).collect();
    }

    fn default_backend(
        &mut self,
        backend: &IngressBackend,
        timeout: Timeout,
        insecure: &mut BTreeMap<String, HttpListener>,
    ) {
        let Some(backend) = self.backend(backend, "spec.defaultBackend") else {
            return;
        };
        self.claim(
            ANY,
            Some(PathMatch::default()),
            "spec.defaultBackend".into(),
        );
        let route = HttpRoute {
            path_match: PathMatch::default(),
            backends: vec![backend],
            timeout,
        };
        let listener = HttpListener {
            hostname: ANY.into(),
            sources: vec![self.source.clone()],
            port: self.ports.insecure,
            routes: vec![route],
            service: self.service.clone(),
            ..HttpListener::default()
        };
        insecure.insert(ANY.into(), listener);
    }

    fn rule(
        &mut self,
        at: usize,
        rule: &IngressRule,
        timeout: Timeout,
        insecure: &mut BTreeMap<String, HttpListener>,
    ) {
        let Some(host) = self.host(at, rule) else {
            return;
        };
        let paths = self.paths(at, rule);
        let mut routes = Vec::new();
        for (field, path) in paths {
            let path_match = self.path_match(&field, path);
            let backend = self.backend(&path.backend, &format!("{field}.backend"));
            let (Some(path_match), Some(backend)) = (path_match, backend) else {
                continue;
            };
            self.claim(&host, Some(path_match.clone()), format!("{field}.path"));
            routes.push(HttpRoute {
                path_match,
                backends: vec![backend],
                timeout,
            });
        }
        if routes.is_empty() {
            return;
        }
        let listener = insecure
            .entry(host.clone())
            .or_insert_with(|| HttpListener {
                name: self.listener_name(&host),
                sources: vec![self.source.clone()],
                port: self.ports.insecure,
                hostname: host,
                service: self.service.clone(),
                ..HttpListener::default()
            });
        listener.routes.extend(routes);
    }

    fn tls(
        &mut self,
        at: usize,
        tls: &IngressTLS,
        force_https: bool,
        insecure: &BTreeMap<String, HttpListener>,
        secure: &mut BTreeMap<String, HttpListener>,
    ) {
        let secret = self.secret(at, tls);
        let hosts = tls.hosts.iter().flatten();
        for (host_at, host) in hosts.enumerate() {
            let field = format!("spec.tls[{at}].hosts[{host_at}]");
            if let Some(mistake) = hostname::mistake(host) {
                self.problem(
                    Code::BadHost,
                    Severity::Error,
                    field,
                    format!("{host:?} {mistake}, so it has no TLS"),
                    "write a lower-case DNS name, or `*.` and one",
                );
                continue;
            }
            let catch_all = insecure.get(ANY);
            let Some(own) = secure
                .get(host)
                .or_else(|| insecure.get(host))
                .or(catch_all)
            else {
                self.problem(
                    Code::BadHost,
                    Severity::Warning,
                    field,
                    format!("no rule serves the host `{host}`, so its TLS entry has no effect"),
                    "add a rule for the host or remove it here",
                );
                continue;
            };
            let tls = secret.iter().cloned().collect();
            // With a catch-all listener its copy takes the place of the host's own rules.
            if catch_all.is_some() && host != ANY && insecure.contains_key(host) {
                self.problem(
                    Code::RouteClaimedTwice,
                    Severity::Warning,
                    field,
                    format!("over TLS the Ingress's default backend or its rule without a host takes the place of all rules of `{host}`"),
                    "move the rules of the host to an Ingress of their own",
                );
            }
            let listener = match catch_all {
                Some(any) => HttpListener {
                    tls,
                    hostname: host.clone(),
                    port: self.ports.secure,
                    force_https: false,
                    ..any.clone()
                },
                None => HttpListener {
                    tls,
                    hostname: host.clone(),
                    port: self.ports.secure,
                    service: self.service.clone(),
                    force_https,
                    ..own.clone()
                },
            };
            secure.insert(host.clone(), listener);
        }
    }

    fn secret(&mut self, at: usize, tls: &IngressTLS) -> Option<SecretName> {
        let field = format!("spec.tls[{at}].secretName");
        let named = tls.secret_name.as_deref().filter(|name| !name.is_empty());
        let secret = named
            .map(|name| SecretName {
                name: name.to_owned(),
                namespace: self.object.namespace.clone(),
            })
            .or_else(|| self.options.default_secret.clone());
        match &secret {
            Some(secret) => self.ingested.secrets.push((secret.clone(), field)),
            None => self.problem(
                Code::MissingSecret,
                Severity::Error,
                field,
                "no certificate is named and there is no default one, so these hosts have no TLS"
                    .into(),
                "name a Secret of type kubernetes.io/tls",
            ),
        }
        secret
    }

    /// The rule's host, `*` without one; none if it is no host.
    fn host(&mut self, at: usize, rule: &IngressRule) -> Option<String> {
        let host = rule.host.as_deref().unwrap_or_default();
        if host.is_empty() {
            return Some(ANY.to_owned());
        }
        let Some(mistake) = hostname::mistake(host) else {
            return Some(host.to_owned());
        };
        self.problem(
            Code::BadHost,
            Severity::Error,
            format!("spec.rules[{at}].host"),
            format!("{host:?} {mistake}, so the rule is left out"),
            "write a lower-case DNS name, or `*.` and one",
        );
        None
    }

    /// The rule's paths with the fields they stand in.
    fn paths<'r>(
        &mut self,
        at: usize,
        rule: &'r IngressRule,
    ) -> Vec<(String, &'r HTTPIngressPath)> {
        let paths = rule.http.as_ref().map_or(&[][..], |http| &http.paths);
        if paths.is_empty() {
            self.problem(
                Code::BadPath,
                Severity::Warning,
                format!("spec.rules[{at}].http"),
                "the rule has no paths, so it is left out".into(),
                "add a path with its backend",
            );
        }
        let field = |path_at| format!("spec.rules[{at}].http.paths[{path_at}]");
        paths
            .iter()
            .enumerate()
            .map(|(path_at, path)| (field(path_at), path))
            .collect()
    }

    fn path_match(&mut self, field: &str, path: &HTTPIngressPath) -> Option<PathMatch> {
        match path::read(path) {
            Ok(path_match) => Some(path_match),
            Err(mistake) => {
                self.problem(
                    Code::BadPath,
                    Severity::Error,
                    format!("{field}.{}", mistake.field),
                    format!(
                        "the {} {}, so the path is left out",
                        mistake.field, mistake.reason
                    ),
                    mistake.fix,
                );
                None
            }
        }
    }

    fn backend(&mut self, backend: &IngressBackend, field: &str) -> Option<Backend> {
        let (field, reason) = match backend.service.as_ref() {
            None if backend.resource.is_some() => (
                format!("{field}.resource"),
                "a backend that is no Service is not supported",
            ),
            None => (field.to_owned(), "the backend names no Service"),
            Some(service) if service.name.is_empty() => (
                format!("{field}.service.name"),
                "the backend's Service has no name",
            ),
            Some(service) => {
                let port = service.port.clone().unwrap_or_default();
                let number = port
                    .number
                    .and_then(|number| u16::try_from(number).ok())
                    .unwrap_or_default();
                let name = port.name.unwrap_or_default();
                if number > 0 || !name.is_empty() {
                    return Some(Backend {
                        name: service.name.clone(),
                        namespace: self.object.namespace.clone(),
                        port: BackendPort { port: number, name },
                        weight: None,
                    });
                }
                (
                    format!("{field}.service.port"),
                    "the backend's port has neither a number (1 to 65535) nor a name",
                )
            }
        };
        self.problem(
            Code::BadBackend,
            Severity::Error,
            field,
            format!("{reason}, so it is left out"),
            "name a Service and one of its ports by number or name",
        );
        None
    }

    fn claim(&mut self, host: &str, path: Option<PathMatch>, field: String) {
        let host = host.to_owned();
        self.ingested.claims.push(Claim { host, path, field });
    }
}

/// What the annotations ask of the Service; none for the usual LoadBalancer.
fn service_wish(annotations: Annotations<'_>, mistakes: &mut Vec<Mistake>) -> Option<ServiceWish> {
    let service_type = annotations.service_type().noting(mistakes);
    (service_type == "NodePort").then(|| ServiceWish {
        service_type: service_type.to_owned(),
        insecure_node_port: annotations.insecure_node_port().noting(mistakes),
        secure_node_port: annotations.secure_node_port().noting(mistakes),
    })
}
