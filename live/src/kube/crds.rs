//! The kinds of its own that an API server must know: Cilium's configs, with a status that Cilium's
//! have not. Its own manifests apply to them unchanged.

/// Both definitions, as one YAML stream for `kubectl apply -f -`.
#[must_use]
pub fn yaml() -> String {
    [
        include_str!("../../crds/ciliumenvoyconfigs.yaml"),
        include_str!("../../crds/ciliumclusterwideenvoyconfigs.yaml"),
    ]
    .join("---\n")
}
