//! What the API server refuses though the types take it: ports that are none, a Service without
//! one, a path without a type. A manifest with such a field never reaches a cluster.

use k8s_openapi::api::core::v1::{Container, PodSpec, Service};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::object::Object;

use super::error::Fault;
use super::mistake::{Mistake, mistake};
use super::path::{FieldPath, Step};

/// Every such field of an object, in the order of the document's type.
pub(super) fn refused(object: &Object) -> Vec<Mistake> {
    match object {
        Object::Service(service) => of_service(service),
        Object::Pod(pod) => pod
            .spec
            .iter()
            .flat_map(|spec| of_pod(&["spec"], spec))
            .collect(),
        Object::Deployment(deployment) => deployment
            .spec
            .iter()
            .filter_map(|spec| spec.template.spec.as_ref())
            .flat_map(|spec| of_pod(&["spec", "template", "spec"], spec))
            .collect(),
        Object::EndpointSlice(slice) => {
            let ports = slice.ports.iter().flatten().enumerate();
            ports
                .filter_map(|(index, port)| bad_port(1, port.port?, &["ports"], index, "port"))
                .collect()
        }
        Object::Ingress(ingress) => of_ingress(ingress),
        Object::Node(_)
        | Object::IngressClass(_)
        | Object::Secret(_)
        | Object::CiliumEnvoyConfig(_)
        | Object::CiliumClusterwideEnvoyConfig(_) => Vec::new(),
    }
}

fn of_service(service: &Service) -> Vec<Mistake> {
    let spec = service.spec.as_ref();
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let needs_none = spec.is_some_and(|spec| {
        spec.type_.as_deref() == Some("ExternalName") || spec.cluster_ip.as_deref() == Some("None")
    });
    if ports.is_empty() && !needs_none {
        return vec![mistake(
            Fault::MissingField,
            &["spec", "ports"],
            "a Service needs at least one port, unless it is headless or an ExternalName",
            "add `ports:` with `- port: 80`",
        )];
    }
    let at = ["spec", "ports"];
    let mut mistakes = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        mistakes.extend(bad_port(1, port.port, &at, index, "port"));
        if let Some(IntOrString::Int(target)) = port.target_port {
            mistakes.extend(bad_port(1, target, &at, index, "targetPort"));
        }
        // 0 asks the API server to choose one.
        mistakes.extend(
            port.node_port
                .and_then(|node| bad_port(0, node, &at, index, "nodePort")),
        );
    }
    mistakes
}

fn of_pod(at: &[&str], spec: &PodSpec) -> Vec<Mistake> {
    let own = spec.containers.iter().enumerate();
    let own = own.map(|(index, container)| ("containers", index, container));
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| ("initContainers", index, container));
    own.chain(init)
        .flat_map(|(list, index, container)| of_container(at, list, index, container))
        .collect()
}

fn of_container(at: &[&str], list: &str, index: usize, container: &Container) -> Vec<Mistake> {
    let mut base = FieldPath::keys(at).0;
    base.push(Step::Key(list.to_owned()));
    base.push(Step::Index(index));
    let under = |mut mistake: Mistake| {
        mistake.path.0.splice(0..0, base.iter().cloned());
        mistake
    };
    let mut mistakes = Vec::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        mistakes.extend(bad_port(
            1,
            port.container_port,
            &["ports"],
            index,
            "containerPort",
        ));
        // 0 is how a dump says that there is none.
        mistakes.extend(
            port.host_port
                .and_then(|host| bad_port(0, host, &["ports"], index, "hostPort")),
        );
    }
    mistakes.into_iter().map(under).collect()
}

/// A number outside of what a port can be.
fn bad_port(least: i32, port: i32, list: &[&str], index: usize, field: &str) -> Option<Mistake> {
    if (least..=65_535).contains(&port) {
        return None;
    }
    let mut path = FieldPath::keys(list).0;
    path.push(Step::Index(index));
    path.push(Step::Key(field.to_owned()));
    Some(Mistake {
        fault: Fault::BadPort,
        path: FieldPath(path),
        reason: format!("{port} is no port"),
        fix: "write a number from 1 to 65535".to_owned(),
    })
}

/// A path needs a path type; k8s-openapi reads none as an empty one.
fn of_ingress(ingress: &Ingress) -> Vec<Mistake> {
    let rules = ingress
        .spec
        .iter()
        .flat_map(|spec| spec.rules.iter().flatten());
    let mut mistakes = Vec::new();
    for (rule, http) in rules
        .enumerate()
        .filter_map(|(index, rule)| Some((index, rule.http.as_ref()?)))
    {
        for (number, path) in http.paths.iter().enumerate() {
            if !path.path_type.is_empty() {
                continue;
            }
            let mut field = FieldPath::keys(&["spec", "rules"]).0;
            field.push(Step::Index(rule));
            field.extend(FieldPath::keys(&["http", "paths"]).0);
            field.push(Step::Index(number));
            field.push(Step::Key("pathType".to_owned()));
            mistakes.push(Mistake {
                fault: Fault::MissingField,
                path: FieldPath(field),
                reason: "a path needs a path type".to_owned(),
                fix: "add `pathType: Prefix`, `Exact` or `ImplementationSpecific`".to_owned(),
            });
        }
    }
    mistakes
}
