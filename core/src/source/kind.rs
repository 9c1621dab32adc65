//! What a document's `apiVersion` and `kind` mean to Nodeway.

use strsim::osa_distance;

use crate::object::Kind;

use super::fields::nearest;

/// What is done with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of the kinds that are read.
    Read(Kind),
    /// A list of objects; its items may leave out `kind` and `apiVersion`.
    List {
        /// The kind of its items (`Service` of a `ServiceList`); none for a plain `List`.
        item: Option<String>,
    },
    /// It could change an answer and is not simulated.
    NotSimulated,
    /// A controller that is not simulated would make pods of it.
    MakesPods,
    /// It cannot change an answer.
    PassedOver,
    /// A kind that is read, in a version that no cluster serves any more.
    WrongVersion {
        /// The versions to use instead.
        want: &'static str,
    },
    /// Probably a misspelt kind.
    Misspelt(&'static str),
}

/// Every kind that is read, with the API groups and versions it is read in. The first is the one
/// to recommend; `cilium.io/v2alpha1` is how the first releases with a CEC spelt it.
const READ: &[(Kind, &str, &[&str])] = &[
    (Kind::Node, "", &["v1"]),
    (
        Kind::IngressClass,
        "networking.k8s.io",
        &["networking.k8s.io/v1"],
    ),
    (
        Kind::Ingress,
        "networking.k8s.io",
        &["networking.k8s.io/v1"],
    ),
    (Kind::Service, "", &["v1"]),
    (
        Kind::EndpointSlice,
        "discovery.k8s.io",
        &["discovery.k8s.io/v1"],
    ),
    (Kind::Deployment, "apps", &["apps/v1"]),
    (Kind::Pod, "", &["v1"]),
    (Kind::Secret, "", &["v1"]),
    (
        Kind::CiliumEnvoyConfig,
        "cilium.io",
        &["cilium.io/v2", "cilium.io/v2alpha1"],
    ),
    (
        Kind::CiliumClusterwideEnvoyConfig,
        "cilium.io",
        &["cilium.io/v2", "cilium.io/v2alpha1"],
    ),
];

/// Kinds that could change an answer: by group, because other groups use the same names.
const NOT_SIMULATED: &[(&str, &[&str])] = &[
    ("networking.k8s.io", &["NetworkPolicy"]),
    (
        "policy.networking.k8s.io",
        &[
            "AdminNetworkPolicy",
            "BaselineAdminNetworkPolicy",
            "ClusterNetworkPolicy",
        ],
    ),
    (
        "cilium.io",
        &[
            "CiliumNetworkPolicy",
            "CiliumClusterwideNetworkPolicy",
            "CiliumLocalRedirectPolicy",
            "CiliumEgressGatewayPolicy",
        ],
    ),
    (
        "gateway.networking.k8s.io",
        &[
            "Gateway",
            "GatewayClass",
            "HTTPRoute",
            "GRPCRoute",
            "TLSRoute",
            "TCPRoute",
            "UDPRoute",
            "ReferenceGrant",
            "BackendTLSPolicy",
        ],
    ),
];

/// What makes pods; nothing is missing when a dump has the pods.
const MAKES_PODS: &[(&str, &[&str])] = &[
    ("apps", &["StatefulSet", "DaemonSet", "ReplicaSet"]),
    ("batch", &["Job", "CronJob"]),
    ("", &["ReplicationController"]),
];

/// Reads `apiVersion` and `kind`.
pub(crate) fn role(api_version: &str, kind: &str) -> Role {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    if let Some(&(known, home, versions)) = READ.iter().find(|(known, ..)| known.name() == kind) {
        return match (versions.contains(&api_version), versions.first()) {
            (true, _) => Role::Read(known),
            // `extensions` is where Deployment and Ingress lived before they got groups of their own.
            (false, Some(want)) if group == home || group == "extensions" => {
                Role::WrongVersion { want }
            }
            // Another group's kind of the same name, as Knative's Service.
            _ => Role::PassedOver,
        };
    }
    if kind == "List" {
        return Role::List { item: None };
    }
    if named(NOT_SIMULATED, group, kind) {
        return Role::NotSimulated;
    }
    if named(MAKES_PODS, group, kind) {
        return Role::MakesPods;
    }
    if let Some(item) = kind.strip_suffix("List").filter(|item| !item.is_empty()) {
        return Role::List {
            item: Some(item.to_owned()),
        };
    }
    let of_this_version = READ
        .iter()
        .filter(|(.., versions)| versions.contains(&api_version));
    // Short names are near to too much: a Job is no misspelt Pod, a Role no misspelt Node.
    let candidates = of_this_version
        .map(|(kind, ..)| kind.name())
        .filter(|name| name.len() > 4);
    match nearest(kind, candidates) {
        Some(meant) if osa_distance(kind, meant) <= 2 => Role::Misspelt(meant),
        _ => Role::PassedOver,
    }
}

fn named(table: &[(&str, &[&str])], group: &str, kind: &str) -> bool {
    table
        .iter()
        .any(|(of, kinds)| *of == group && kinds.contains(&kind))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::read("networking.k8s.io/v1", "Ingress", Role::Read(Kind::Ingress))]
    #[case::the_articles_version(
        "cilium.io/v2alpha1",
        "CiliumEnvoyConfig",
        Role::Read(Kind::CiliumEnvoyConfig)
    )]
    #[case::long_gone("extensions/v1beta1", "Ingress", Role::WrongVersion { want: "networking.k8s.io/v1" })]
    #[case::beta("discovery.k8s.io/v1beta1", "EndpointSlice", Role::WrongVersion { want: "discovery.k8s.io/v1" })]
    #[case::anothers_service("serving.knative.dev/v1", "Service", Role::PassedOver)]
    #[case::a_policy("cilium.io/v2", "CiliumNetworkPolicy", Role::NotSimulated)]
    #[case::a_stateful_set("apps/v1", "StatefulSet", Role::MakesPods)]
    #[case::a_plain_list("v1", "List", Role::List { item: None })]
    #[case::a_typed_list("v1", "ServiceList", Role::List { item: Some("Service".into()) })]
    #[case::what_cannot_matter("v1", "ConfigMap", Role::PassedOver)]
    #[case::a_job_is_no_pod("v1", "Job", Role::PassedOver)]
    #[case::misspelt("v1", "Sevice", Role::Misspelt("Service"))]
    #[case::misspelt_case("networking.k8s.io/v1", "ingress", Role::Misspelt("Ingress"))]
    #[case::service_account("v1", "ServiceAccount", Role::PassedOver)]
    fn a_document_is_told_by_version_and_kind(
        #[case] version: &str,
        #[case] kind: &str,
        #[case] want: Role,
    ) {
        assert_eq!(role(version, kind), want);
    }
}
