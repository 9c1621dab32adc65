//! Who asks: what a user writes after `--from` becomes a place.

use std::net::IpAddr;

use nodeway_core::object::{Kind, ObjectRef, Objects, namespace_of};

use crate::cluster::AskError;
use crate::net::{Place, Topology};

/// The place that a user means by `--from`.
pub(crate) fn place(
    asked: &str,
    objects: &Objects,
    topology: &Topology,
) -> Result<Place, AskError> {
    let found = match (asked.split_once('/'), asked.parse::<IpAddr>()) {
        (_, Ok(address)) => topology.holder(address),
        (Some(("node", name)), _) => topology
            .node(name)
            .map(|node| Place::Node(node.name.clone())),
        (Some(("outside", name)), _) => {
            let host = topology.outside.iter().find(|host| host.name == name);
            host.map(|host| Place::Outside(host.name.clone()))
        }
        (None, _) if asked == "outside" => topology
            .outside
            .first()
            .map(|host| Place::Outside(host.name.clone())),
        (Some((namespace, name)), _) => pod_of(namespace, name, objects).map(Place::Pod),
        (None, _) => pod_of("default", asked, objects).map(Place::Pod),
    };
    found.ok_or_else(|| AskError::UnknownClient {
        from: asked.to_owned(),
        close: close(asked, objects, topology),
    })
}

/// Who could have been meant: the five nearest names.
fn close(asked: &str, objects: &Objects, topology: &Topology) -> Vec<String> {
    let pods = objects
        .pods()
        .map(|pod| ObjectRef::of(Kind::Pod, &pod.metadata).path());
    let makers = objects
        .deployments()
        .map(|one| ObjectRef::of(Kind::Deployment, &one.metadata).path());
    let nodes = topology
        .nodes
        .iter()
        .map(|node| format!("node/{}", node.name));
    let outside = topology
        .outside
        .iter()
        .map(|host| format!("outside/{}", host.name));
    let mut all: Vec<(usize, String)> = pods
        .chain(makers)
        .chain(nodes)
        .chain(outside)
        .map(|name| (strsim::levenshtein(&name, asked), name))
        .collect();
    all.sort();
    all.into_iter().take(5).map(|(_, name)| name).collect()
}

/// The pod of that name, or the first pod of the Deployment of that name.
fn pod_of(namespace: &str, name: &str, objects: &Objects) -> Option<String> {
    if objects.pod(namespace, name).is_some() {
        return Some(ObjectRef::new(Kind::Pod, namespace, name).path());
    }
    let deployment = objects.deployment(namespace, name)?;
    let selector = deployment.spec.as_ref()?.selector.match_labels.as_ref()?;
    let pod = objects.pods().find(|pod| {
        let labels = pod.metadata.labels.as_ref();
        let here = namespace_of(&pod.metadata) == namespace;
        here && selector
            .iter()
            .all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
    })?;
    Some(ObjectRef::of(Kind::Pod, &pod.metadata).path())
}
