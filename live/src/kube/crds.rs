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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn both_kinds_in_both_versions_have_one_schema() {
        let mut schemas = Vec::new();
        for text in yaml().split("---\n") {
            let definition: Value = serde_saphyr::from_str(text).unwrap();
            for version in definition["spec"]["versions"].as_array().unwrap() {
                let mut schema = version["schema"]["openAPIV3Schema"].clone();
                schema["description"] = Value::Null;
                schemas.push((schema, version["additionalPrinterColumns"].clone()));
            }
        }
        assert_eq!(schemas.len(), 4);
        assert!(schemas.iter().all(|it| *it == schemas[0]));
    }
}
