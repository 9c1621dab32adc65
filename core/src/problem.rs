//! What is wrong with an object that a user wrote: numbered, with the field and what to do.
//!
//! A problem is not an error: the rest of the cluster goes on. One numbering serves problems,
//! findings of `check` and conditions of a status, and a number is never given twice.

use std::fmt;

use serde::Serialize;

use crate::object::ObjectRef;

/// The number of a kind of problem. A page of the book explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Code {
    /// An Envoy resource of a CEC does not parse: unknown or mistyped field, unknown `@type`.
    EnvoyResource = 1,
    /// A CEC's `services` names a listener that the CEC does not have.
    MissingListener = 2,
    /// A route names a cluster that no CEC has.
    MissingCluster = 3,
    /// A CEC's `services` or `backendServices` names a Service that does not exist.
    MissingService = 4,
    /// A Service has no port of that number or name.
    MissingPort = 5,
    /// A Service has no ready endpoint.
    NoEndpoints = 6,
    /// Two configs claim one frontend; the older one, then the lower name, has it.
    FrontendClaimedTwice = 7,
    /// A listener names a RouteConfiguration that its CEC does not have.
    MissingRouteConfiguration = 8,
    /// Two resources of one type and name.
    DuplicateResource = 9,
    /// An Ingress has a host that is no host name.
    BadHost = 10,
    /// An Ingress has a path that is no path, or a regular expression that is none.
    BadPath = 11,
    /// An Ingress's backend has neither a service nor what else could serve.
    BadBackend = 12,
    /// An Ingress is of no class of ours and is passed over.
    ForeignIngressClass = 13,
    /// Two Ingresses claim one host and path.
    RouteClaimedTwice = 14,
    /// A Secret that an Ingress or a listener names does not exist.
    MissingSecret = 15,
    /// An annotation's value is not what the annotation takes; its default is used.
    BadAnnotation = 16,
    /// A node selector that is none.
    BadNodeSelector = 17,
    /// Envoy would refuse the resource for what it says (`partial wildcards are not supported`).
    Refused = 18,
    /// No port is left in the proxy's range.
    PortsExhausted = 19,
    /// A Service without a port.
    ServiceWithoutPort = 20,
    /// A config asks for what Nodeway does not support yet.
    Unsupported = 21,
    /// A Secret that is named holds no certificate, or no key.
    BadCertificate = 22,
    /// A route that an earlier one of its virtual host takes all or the named requests from.
    UnreachableRoute = 23,
    /// A config to whose listeners no packet comes, or that says nothing.
    WithoutEffect = 24,
    /// A config's node selector picks no node of the cluster.
    NoSuchNode = 25,
    /// An object near, or beyond, the size that the API server takes.
    TooLarge = 26,
    /// Two configs define a cluster of one name, and not alike; the older has it.
    ClusterDefinedTwice = 27,
    /// A running Envoy refused a resource, which nothing foresaw; told in its own words.
    RefusedByEnvoy = 28,
    /// A source range of a Service that is no network.
    BadSourceRange = 29,
    /// A config takes what is not its namespace's: a name, a Secret, a file or socket of the node.
    BeyondNamespace = 30,
}

impl Code {
    /// Every code, by number.
    pub const ALL: [Self; 30] = [
        Self::EnvoyResource,
        Self::MissingListener,
        Self::MissingCluster,
        Self::MissingService,
        Self::MissingPort,
        Self::NoEndpoints,
        Self::FrontendClaimedTwice,
        Self::MissingRouteConfiguration,
        Self::DuplicateResource,
        Self::BadHost,
        Self::BadPath,
        Self::BadBackend,
        Self::ForeignIngressClass,
        Self::RouteClaimedTwice,
        Self::MissingSecret,
        Self::BadAnnotation,
        Self::BadNodeSelector,
        Self::Refused,
        Self::PortsExhausted,
        Self::ServiceWithoutPort,
        Self::Unsupported,
        Self::BadCertificate,
        Self::UnreachableRoute,
        Self::WithoutEffect,
        Self::NoSuchNode,
        Self::TooLarge,
        Self::ClusterDefinedTwice,
        Self::RefusedByEnvoy,
        Self::BadSourceRange,
        Self::BeyondNamespace,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NW{:04}", *self as u16)
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Part of what the object asks for does not happen.
    Error,
    /// What happens is probably not what was meant.
    Warning,
}

/// One thing that is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The kind of problem.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The object a user would edit.
    pub object: ObjectRef,
    /// The field's path in that object (`spec.rules[0].host`); empty for the object as a whole.
    pub field: String,
    /// What is wrong, in one sentence without a full stop.
    pub reason: String,
    /// What to do, as an imperative sentence without a full stop.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.object)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}; {}", self.reason, self.fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbered_without_gaps_and_printed_with_four_digits() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, index + 1);
        }
        assert_eq!(Code::MissingCluster.to_string(), "NW0003");
    }
}
