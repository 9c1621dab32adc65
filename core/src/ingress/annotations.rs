//! What an Ingress says in annotations: each with its default, its older spelling and its mistakes.
//!
//! A value that an annotation does not take is not an error: the default holds, and a
//! [`Mistake`] says so.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::networking::v1::Ingress;

use super::class::go_bool;
use super::duration;
use super::mode::Mode;
use crate::object::ObjectRef;
use crate::problem::{Code, Problem, Severity};

/// `dedicated` or `shared`.
pub const LOADBALANCER_MODE: &str = "ingress.cilium.io/loadbalancer-mode";
/// `spec.loadBalancerClass` of the dedicated Service.
pub const LOADBALANCER_CLASS: &str = "ingress.cilium.io/loadbalancer-class";
/// `LoadBalancer` or `NodePort`.
pub const SERVICE_TYPE: &str = "ingress.cilium.io/service-type";
/// `Cluster` or `Local`.
pub const EXTERNAL_TRAFFIC_POLICY: &str = "ingress.cilium.io/service-external-traffic-policy";
/// The NodePort of port 80.
pub const INSECURE_NODE_PORT: &str = "ingress.cilium.io/insecure-node-port";
/// The NodePort of port 443.
pub const SECURE_NODE_PORT: &str = "ingress.cilium.io/secure-node-port";
/// The port on the nodes themselves, in host-network mode.
pub const HOST_LISTENER_PORT: &str = "ingress.cilium.io/host-listener-port";
/// Whether TLS is passed through.
pub const TLS_PASSTHROUGH: &str = "ingress.cilium.io/tls-passthrough";
/// Whether plain text is redirected to TLS.
pub const FORCE_HTTPS: &str = "ingress.cilium.io/force-https";
/// How long a request may take.
pub const REQUEST_TIMEOUT: &str = "ingress.cilium.io/request-timeout";

/// A value that an annotation does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The annotation as the Ingress spells it.
    pub annotation: String,
    /// The value.
    pub value: String,
    /// What it takes.
    pub takes: &'static str,
    /// What holds instead.
    pub instead: String,
}

impl Mistake {
    /// The mistake as a problem of the Ingress that has it.
    #[must_use]
    pub fn problem(self, ingress: &ObjectRef) -> Problem {
        Problem {
            code: Code::BadAnnotation,
            severity: Severity::Warning,
            object: ingress.clone(),
            field: format!("metadata.annotations[{}]", self.annotation),
            reason: format!(
                "{:?} is not {}, so {}",
                self.value, self.takes, self.instead
            ),
            fix: format!("set it to {} or remove it", self.takes),
        }
    }
}

/// What came of reading an annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// The value, or the default.
    pub value: T,
    /// Why the default holds although something is written.
    pub mistake: Option<Mistake>,
}

impl<T> Read<T> {
    fn good(value: T) -> Self {
        Self {
            value,
            mistake: None,
        }
    }

    /// The value; a mistake is added to `mistakes`.
    pub fn noting(self, mistakes: &mut Vec<Mistake>) -> T {
        mistakes.extend(self.mistake);
        self.value
    }
}

/// The annotations of one Ingress.
#[derive(Clone, Copy, Debug)]
pub struct Annotations<'a>(Option<&'a BTreeMap<String, String>>);

impl<'a> Annotations<'a> {
    /// Those of this Ingress.
    #[must_use]
    pub fn of(ingress: &'a Ingress) -> Self {
        Self(ingress.metadata.annotations.as_ref())
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0?.get(key).map(String::as_str)
    }

    /// The value and the spelling in use: today's, or the older `io.cilium.ingress/…`.
    fn get_with_alias(&self, key: &str) -> Option<(String, &'a str)> {
        let alias = key.replace("ingress.cilium.io/", "io.cilium.ingress/");
        let spelling = [key.to_owned(), alias].into_iter();
        spelling
            .filter_map(|key| self.get(&key).map(|value| (key, value)))
            .next()
    }

    /// Dedicated or shared; `default` if the Ingress does not say.
    #[must_use]
    pub fn loadbalancer_mode(&self, default: Mode) -> Read<Mode> {
        match self.get_with_alias(LOADBALANCER_MODE) {
            None => Read::good(default),
            Some((_, "dedicated")) => Read::good(Mode::Dedicated),
            Some((_, "shared")) => Read::good(Mode::Shared),
            Some((key, value)) => Read {
                value: default,
                mistake: mistake(
                    key,
                    value,
                    "`dedicated` or `shared`",
                    format!("the default `{default}` holds"),
                ),
            },
        }
    }

    /// The class of the dedicated LoadBalancer.
    #[must_use]
    pub fn loadbalancer_class(&self) -> Option<&'a str> {
        self.get(LOADBALANCER_CLASS)
    }

    /// The type of the dedicated Service; `LoadBalancer` if the Ingress does not say.
    #[must_use]
    pub fn service_type(&self) -> Read<&'static str> {
        const DEFAULT: &str = "LoadBalancer";
        match self.get_with_alias(SERVICE_TYPE) {
            None | Some((_, DEFAULT)) => Read::good(DEFAULT),
            Some((_, "NodePort")) => Read::good("NodePort"),
            Some((key, value)) => Read {
                value: DEFAULT,
                mistake: mistake(
                    key,
                    value,
                    "`LoadBalancer` or `NodePort`",
                    "the Service is a LoadBalancer".into(),
                ),
            },
        }
    }

    /// The dedicated Service's external traffic policy; Kubernetes' own default if it is not set.
    #[must_use]
    pub fn external_traffic_policy(&self) -> Read<Option<&'static str>> {
        match self.get(EXTERNAL_TRAFFIC_POLICY) {
            None => Read::good(None),
            Some("Cluster") => Read::good(Some("Cluster")),
            Some("Local") => Read::good(Some("Local")),
            Some(value) => Read {
                value: Some("Cluster"),
                mistake: mistake(
                    EXTERNAL_TRAFFIC_POLICY.into(),
                    value,
                    "`Cluster` or `Local`",
                    "the policy is `Cluster`".into(),
                ),
            },
        }
    }

    /// The NodePort of port 80; a free one if it is not set.
    #[must_use]
    pub fn insecure_node_port(&self) -> Read<Option<u16>> {
        self.port(
            self.get_with_alias(INSECURE_NODE_PORT),
            "a free NodePort is taken",
        )
    }

    /// The NodePort of port 443; a free one if it is not set.
    #[must_use]
    pub fn secure_node_port(&self) -> Read<Option<u16>> {
        self.port(
            self.get_with_alias(SECURE_NODE_PORT),
            "a free NodePort is taken",
        )
    }

    /// The port on the nodes themselves.
    #[must_use]
    pub fn host_listener_port(&self) -> Read<Option<u16>> {
        let written = self
            .get(HOST_LISTENER_PORT)
            .map(|value| (HOST_LISTENER_PORT.to_owned(), value));
        self.port(written, "the default port holds")
    }

    fn port(&self, written: Option<(String, &str)>, instead: &str) -> Read<Option<u16>> {
        match written {
            None => Read::good(None),
            Some((key, value)) => match value.parse::<u16>() {
                Ok(port) if port > 0 => Read::good(Some(port)),
                _ => Read {
                    value: None,
                    mistake: mistake(key, value, "a port from 1 to 65535", instead.to_owned()),
                },
            },
        }
    }

    /// Whether TLS is passed through; it is not if the Ingress does not say.
    #[must_use]
    pub fn tls_passthrough(&self) -> Read<bool> {
        let read = switch(
            self.get_with_alias(TLS_PASSTHROUGH),
            "TLS is not passed through",
        );
        Read {
            value: read.value.unwrap_or(false),
            mistake: read.mistake,
        }
    }

    /// Whether plain text is redirected to TLS; none leaves it to the operator.
    #[must_use]
    pub fn force_https(&self) -> Read<Option<bool>> {
        switch(
            self.get(FORCE_HTTPS)
                .map(|value| (FORCE_HTTPS.to_owned(), value)),
            "the operator's default holds",
        )
    }

    /// How long a request may take; none leaves it to the operator.
    #[must_use]
    pub fn request_timeout(&self) -> Read<Option<Duration>> {
        match self.get(REQUEST_TIMEOUT) {
            None => Read::good(None),
            Some(value) => match duration::from_go(value) {
                Some(duration) => Read::good(Some(duration)),
                None => Read {
                    value: None,
                    mistake: mistake(
                        REQUEST_TIMEOUT.into(),
                        value,
                        "a duration such as `10s` or `1m30s`",
                        "the operator's default holds".into(),
                    ),
                },
            },
        }
    }
}

fn switch(written: Option<(String, &str)>, instead: &str) -> Read<Option<bool>> {
    match written {
        None => Read::good(None),
        Some((_, "enabled")) => Read::good(Some(true)),
        Some((_, "disabled")) => Read::good(Some(false)),
        Some((key, value)) => match go_bool(value) {
            Some(on) => Read::good(Some(on)),
            None => Read {
                value: None,
                mistake: mistake(
                    key,
                    value,
                    "`enabled`, `disabled`, `true` or `false`",
                    instead.to_owned(),
                ),
            },
        },
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every caller wants it as the field of a `Read`"
)]
fn mistake(
    annotation: String,
    value: &str,
    takes: &'static str,
    instead: String,
) -> Option<Mistake> {
    Some(Mistake {
        annotation,
        value: value.to_owned(),
        takes,
        instead,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn with(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[rstest]
    #[case("ingress.cilium.io/loadbalancer-mode", "shared", Mode::Shared, false)]
    #[case("io.cilium.ingress/loadbalancer-mode", "shared", Mode::Shared, false)]
    #[case("ingress.cilium.io/loadbalancer-mode", "Shared", Mode::Dedicated, true)]
    #[case("example.com/loadbalancer-mode", "shared", Mode::Dedicated, false)]
    fn the_mode_has_two_spellings(
        #[case] key: &str,
        #[case] value: &str,
        #[case] want: Mode,
        #[case] mistaken: bool,
    ) {
        let all = with(key, value);
        let read = Annotations(Some(&all)).loadbalancer_mode(Mode::Dedicated);
        assert_eq!((read.value, read.mistake.is_some()), (want, mistaken));
    }

    #[test]
    fn the_newer_spelling_wins() {
        let mut all = with("io.cilium.ingress/loadbalancer-mode", "shared");
        all.extend(with(LOADBALANCER_MODE, "dedicated"));
        assert_eq!(
            Annotations(Some(&all))
                .loadbalancer_mode(Mode::Shared)
                .value,
            Mode::Dedicated
        );
    }

    #[rstest]
    #[case("enabled", Some(true), false)]
    #[case("disabled", Some(false), false)]
    #[case("T", Some(true), false)]
    #[case("0", Some(false), false)]
    #[case("yes", None, true)]
    #[case("", None, true)]
    fn a_switch_takes_words_and_booleans(
        #[case] value: &str,
        #[case] want: Option<bool>,
        #[case] mistaken: bool,
    ) {
        let all = with(FORCE_HTTPS, value);
        let read = Annotations(Some(&all)).force_https();
        assert_eq!((read.value, read.mistake.is_some()), (want, mistaken));
    }

    #[rstest]
    #[case("30000", Some(30000), false)]
    #[case("0", None, true)]
    #[case("-1", None, true)]
    #[case("70000", None, true)]
    #[case("eighty", None, true)]
    fn a_port_is_a_port(#[case] value: &str, #[case] want: Option<u16>, #[case] mistaken: bool) {
        let all = with(SECURE_NODE_PORT, value);
        let read = Annotations(Some(&all)).secure_node_port();
        assert_eq!((read.value, read.mistake.is_some()), (want, mistaken));
    }

    #[test]
    fn a_mistake_says_what_holds_and_what_to_do() {
        let all = with("io.cilium.ingress/service-type", "Headless");
        let ingress = ObjectRef::new(crate::object::Kind::Ingress, "default", "shop");
        let problem = Annotations(Some(&all))
            .service_type()
            .mistake
            .unwrap()
            .problem(&ingress);
        insta::assert_snapshot!(problem.to_string(), @"NW0016 Ingress default/shop metadata.annotations[io.cilium.ingress/service-type]: \"Headless\" is not `LoadBalancer` or `NodePort`, so the Service is a LoadBalancer; set it to `LoadBalancer` or `NodePort` or remove it");
    }

    #[test]
    fn nothing_written_is_no_mistake() {
        let none = Annotations(None);
        assert_eq!(none.service_type(), Read::good("LoadBalancer"));
        assert_eq!(none.external_traffic_policy(), Read::good(None));
        assert_eq!(none.insecure_node_port(), Read::good(None));
        assert_eq!(none.host_listener_port(), Read::good(None));
        assert_eq!(none.tls_passthrough(), Read::good(false));
        assert_eq!(none.request_timeout(), Read::good(None));
        assert_eq!(none.loadbalancer_class(), None);
    }
}
