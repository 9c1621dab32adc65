//! Findings as SARIF 2.1.0, which code hosts show beside the lines of a change.

use std::fmt::Write as _;

use nodeway_core::problem::{Code, Severity};
use serde_json::{Value, json};

use super::{Finding, page};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// A log with one run.
pub(super) fn log(findings: &[Finding<'_>]) -> Value {
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "nodeway",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": Code::ALL.map(rule),
            }},
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

/// What a number means.
fn rule(code: Code) -> Value {
    json!({
        "id": code.to_string(),
        "name": format!("{code:?}"),
        // The format wants a whole address here, not a path.
        "helpUri": format!("{}/blob/main/{}", env!("CARGO_PKG_REPOSITORY"), page(code)),
    })
}

fn result(finding: &Finding<'_>) -> Value {
    let problem = finding.problem;
    let level = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let object = problem.object.to_string();
    let name = [object.as_str(), problem.field.as_str()].join(" ");
    let mut location = json!({
        "logicalLocations": [{ "fullyQualifiedName": name.trim_end(), "kind": "object" }],
    });
    // Standard input is no file that a reader could open.
    if let (Some(file), Some(line)) = (finding.file.filter(|file| *file != "-"), finding.line)
        && let Some(fields) = location.as_object_mut()
    {
        let place = json!({
            "artifactLocation": { "uri": uri(file) },
            "region": { "startLine": line },
        });
        fields.insert("physicalLocation".to_owned(), place);
    }
    json!({
        "ruleId": problem.code.to_string(),
        "ruleIndex": Code::ALL.iter().position(|code| *code == problem.code),
        "level": level,
        "message": { "text": format!("{name}: {}; {}", problem.reason, problem.fix) },
        "locations": [location],
    })
}

/// A path as a URI reference: what is not allowed there becomes `%` and two digits (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a text never fails.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn a_path_with_a_space_or_a_colon_is_a_uri_all_the_same() {
        assert_eq!(uri("my shop/a:b.yaml"), "my%20shop/a%3Ab.yaml");
        assert_eq!(uri("/tmp/é.yaml"), "/tmp/%C3%A9.yaml");
    }
}
