//! An Ingress that the operator holds: whether it is ours, what it asks for, what is made of it alone.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;

use super::Operator;
use crate::ingress::annotations::{Annotations, Mistake};
use crate::ingress::class::ClassVerdict;
use crate::ingress::dialect::Dialect;
use crate::ingress::ingest::{Ingested, ingest};
use crate::ingress::mode::Mode;
use crate::ingress::model::Model;
use crate::ingress::names::Names;
use crate::ingress::options::Ports;
use crate::ingress::translate::config;
use crate::ingress::{claims, legacy, service};
use crate::object::{Kind, Object, ObjectRef};
use crate::problem::{Code, Problem, Severity};

/// An Ingress and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) ingress: Arc<Ingress>,
    pub(super) verdict: ClassVerdict,
    /// None if it is not ours or is being deleted.
    pub(super) mode: Option<Mode>,
    pub(super) ingested: Ingested,
    pub(super) problems: Vec<Problem>,
}

impl Operator {
    pub(super) fn look_at(&self, ingress: &Ingress) -> ClassVerdict {
        ClassVerdict::of(ingress, &self.options.class, self.class.as_deref())
    }

    /// Reads an Ingress, and writes what it has alone.
    pub(super) fn read(
        &self,
        reference: &ObjectRef,
        ingress: &Arc<Ingress>,
    ) -> (Held, Vec<Object>) {
        let verdict = self.look_at(ingress);
        let mut held = Held {
            ingress: Arc::clone(ingress),
            mode: None,
            ingested: Ingested::default(),
            problems: Vec::new(),
            verdict,
        };
        if ingress.metadata.deletion_timestamp.is_some() {
            return (held, Vec::new());
        }
        if !held.verdict.is_ours() {
            held.problems
                .push(foreign(reference, &held.verdict, &self.options.class));
            return (held, Vec::new());
        }
        let mut mistakes = Vec::new();
        let annotations = Annotations::of(ingress);
        let asked = annotations
            .loadbalancer_mode(self.options.default_mode)
            .noting(&mut mistakes);
        let legacy = self.options.dialect == Dialect::V1_11;
        let mode = if legacy { Mode::Dedicated } else { asked };
        let ports = Ports::of(annotations, mode, &self.options, &mut mistakes);
        held.ingested = ingest(ingress, ports, &self.options);
        held.mode = Some(mode);
        if legacy {
            let model = &mut held.ingested.model;
            held.problems = legacy::leave_out_unknown(reference, asked, model);
        }
        let mut made = Vec::new();
        if held.ingested.model.is_empty() {
            held.problems.push(empty(reference));
        } else if mode == Mode::Dedicated {
            made = self.dedicated(ingress, reference, &held.ingested.model, &mut mistakes);
        }
        held.problems.append(&mut held.ingested.problems);
        held.problems
            .extend(claims::within(reference, &held.ingested.claims));
        held.problems.extend(
            mistakes
                .into_iter()
                .map(|mistake| mistake.problem(reference)),
        );
        (held, made)
    }

    fn dedicated(
        &self,
        ingress: &Ingress,
        reference: &ObjectRef,
        model: &Model,
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<Object> {
        let names = Names::dedicated(&reference.namespace, &reference.name);
        let mut config = config(model, &names, &self.options);
        config.metadata.owner_references = service::owner(ingress, Some(true));
        let service = service::dedicated(ingress, model, &names, &self.options, mistakes);
        let placeholder = self
            .options
            .placeholder_endpoints
            .then(|| service::placeholder(&service));
        let mut made = vec![
            Object::CiliumEnvoyConfig(Arc::new(config)),
            Object::Service(Arc::new(service)),
        ];
        made.extend(placeholder.map(|slice| Object::EndpointSlice(Arc::new(slice))));
        made
    }

    pub(super) fn missing_secrets<'a>(
        &'a self,
        reference: &'a ObjectRef,
        held: &'a Held,
    ) -> impl Iterator<Item = Problem> + 'a {
        let secrets = held.ingested.secrets.iter();
        secrets.filter_map(move |(secret, field)| {
            let wanted = ObjectRef::new(Kind::Secret, &secret.namespace, &secret.name);
            (!self.secrets.contains(&wanted)).then(|| Problem {
                code: Code::MissingSecret,
                severity: Severity::Warning,
                object: reference.clone(),
                field: field.clone(),
                reason: format!(
                    "{wanted} does not exist, so Envoy waits for a certificate and TLS fails"
                ),
                fix: "create it with the type kubernetes.io/tls, or name another".into(),
            })
        })
    }
}

fn foreign(ingress: &ObjectRef, verdict: &ClassVerdict, ours: &str) -> Problem {
    Problem {
        code: Code::ForeignIngressClass,
        severity: Severity::Warning,
        object: ingress.clone(),
        field: verdict.field(),
        reason: format!("{verdict}, so the Ingress is passed over"),
        fix: format!("set spec.ingressClassName to `{ours}` if this Ingress is meant for it"),
    }
}

/// Cilium's own words for it are "model source can't be empty".
fn empty(ingress: &ObjectRef) -> Problem {
    Problem {
        code: Code::BadBackend,
        severity: Severity::Error,
        object: ingress.clone(),
        field: "spec".into(),
        reason: "neither a rule nor a default backend is left that could serve, so nothing is made"
            .into(),
        fix: "add a rule with a path and a backend, or a default backend".into(),
    }
}
