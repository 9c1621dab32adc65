//! How many links a request crossed, by where its connections began and ended.

use nodeway_sim::{Place, Sim};

/// The links from one place to another: each veth pair, uplink or `lo` at whose end a packet
/// arrives.
pub(super) fn between(model: &Sim, from: &Place, to: &Place) -> usize {
    let (from, to) = (at(model, from), at(model, to));
    if from == to {
        return 1;
    }
    let veths = usize::from(from.pod.is_some()) + usize::from(to.pod.is_some());
    let uplink = usize::from(from.machine != to.machine);
    veths + uplink
}

/// A machine that the fabric reaches, and the pod in a namespace of its own on it.
#[derive(PartialEq, Eq)]
struct At {
    machine: Place,
    pod: Option<String>,
}

fn at(model: &Sim, place: &Place) -> At {
    let Place::Pod(name) = place else {
        return At {
            machine: place.clone(),
            pod: None,
        };
    };
    match model.topology().pod(name) {
        Some((node, pod)) => At {
            machine: Place::Node(node.name.clone()),
            pod: (!pod.host_network).then(|| name.clone()),
        },
        None => At {
            machine: place.clone(),
            pod: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use nodeway_sim::Fixture;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::itself("pod/default/client", "pod/default/client", 1)]
    #[case::its_node("pod/default/client", "node/node-1", 1)]
    #[case::another_node("pod/default/client", "node/node-2", 2)]
    #[case::a_neighbour("pod/default/client", "pod/default/productpage-v1-1", 2)]
    #[case::a_pod_elsewhere("pod/default/client", "pod/default/details-v1-1", 3)]
    #[case::from_node_to_node("node/node-1", "node/node-2", 1)]
    #[case::from_outside("outside/client", "pod/default/details-v1-1", 2)]
    fn every_link_counts_once(#[case] from: &str, #[case] to: &str, #[case] links: usize) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/bookinfo");
        let fixture = Fixture::load(folder).unwrap();
        let model = Sim::from_fixture(&fixture).unwrap().start().unwrap();
        let place = |text: &str| match text.split_once('/').unwrap() {
            ("node", name) => Place::Node(name.to_owned()),
            ("outside", name) => Place::Outside(name.to_owned()),
            (_, name) => Place::Pod(name.to_owned()),
        };
        assert_eq!(between(&model, &place(from), &place(to)), links);
    }
}
