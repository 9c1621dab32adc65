//! `kube-system/cilium-config`: what a dumped cluster's agents and operator are told.
//!
//! A dump that has it says more than manifests can: by which mechanism packets come to the
//! listener, which ports listeners get, what holds for an Ingress that does not say. Only the keys
//! below are read; a value that cannot be read is noted, and Cilium's default holds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ingress::{self, Mode};

/// The ConfigMap's name; its namespace is wherever Cilium is installed.
pub const NAME: &str = "cilium-config";

/// The ConfigMap `cilium-config` of a dumped cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CiliumConfig {
    /// Its namespace: where Cilium runs.
    pub namespace: String,
    /// The file it stands in, as the user named it.
    pub file: Arc<str>,
    /// 1-based line where it begins.
    pub line: u32,
    /// `data`
    pub data: BTreeMap<String, String>,
}

/// A value that is not what its key takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// The key in `data`.
    pub key: &'static str,
    /// What stands there.
    pub value: String,
    /// What the key takes.
    pub wants: &'static str,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, wants } = self;
        write!(
            f,
            "data.{key}: `{value}` is not {wants}, Cilium's default is used"
        )
    }
}

impl CiliumConfig {
    /// Whether BPF programs hand packets to the proxy's socket (`enable-bpf-tproxy`). Cilium's
    /// default is not: rules of iptables do.
    ///
    /// # Errors
    /// When the value is neither true nor false.
    pub fn bpf_tproxy(&self) -> Result<bool, BadValue> {
        Ok(self.flag("enable-bpf-tproxy")?.unwrap_or(false))
    }

    /// The first and the last port that listeners get (`proxy-portrange-min`, `-max`), where both
    /// or one of them is set.
    ///
    /// # Errors
    /// When one is no port, or the range is empty.
    pub fn ports(&self) -> Result<Option<(u16, u16)>, BadValue> {
        const FIRST: &str = "proxy-portrange-min";
        const LAST: &str = "proxy-portrange-max";
        let (first, last) = (self.port(FIRST)?, self.port(LAST)?);
        if first.is_none() && last.is_none() {
            return Ok(None);
        }
        let first = first.unwrap_or(crate::plan::FIRST_PORT);
        let last = last.unwrap_or(crate::plan::LAST_PORT);
        if first > last {
            let value = format!("{first}-{last}");
            let wants = "a range that begins before it ends";
            return Err(BadValue {
                key: FIRST,
                value,
                wants,
            });
        }
        Ok(Some((first, last)))
    }

    /// Sets what the ConfigMap says of Ingresses, and gives back what could not be read.
    pub fn apply_to(&self, options: &mut ingress::Options) -> Vec<BadValue> {
        let mut bad = Vec::new();
        self.namespace.clone_into(&mut options.cilium_namespace);
        let flags: [(&'static str, &mut bool); 4] = [
            ("enforce-ingress-https", &mut options.enforce_https),
            (
                "enable-ingress-proxy-protocol",
                &mut options.use_proxy_protocol,
            ),
            ("enable-ipv4", &mut options.ipv4),
            ("enable-ipv6", &mut options.ipv6),
        ];
        for (key, option) in flags {
            match self.flag(key) {
                Ok(value) => *option = value.unwrap_or(*option),
                Err(error) => bad.push(error),
            }
        }
        match self.mode() {
            Ok(mode) => options.default_mode = mode.unwrap_or(options.default_mode),
            Err(error) => bad.push(error),
        }
        let texts: [(&str, &mut String); 2] = [
            (
                "ingress-shared-lb-service-name",
                &mut options.shared_service_name,
            ),
            ("ingress-secrets-namespace", &mut options.secrets_namespace),
        ];
        for (key, option) in texts {
            if let Some(value) = self.text(key) {
                value.clone_into(option);
            }
        }
        bad
    }

    fn mode(&self) -> Result<Option<Mode>, BadValue> {
        const KEY: &str = "ingress-default-lb-mode";
        match self.text(KEY) {
            None => Ok(None),
            Some("dedicated") => Ok(Some(Mode::Dedicated)),
            Some("shared") => Ok(Some(Mode::Shared)),
            Some(other) => Err(bad(KEY, other, "`dedicated` or `shared`")),
        }
    }

    /// A key's value; an empty one says nothing.
    fn text(&self, key: &str) -> Option<&str> {
        let value = self.data.get(key)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// A boolean as Go's `strconv.ParseBool` takes it, which Cilium's flags go through.
    fn flag(&self, key: &'static str) -> Result<Option<bool>, BadValue> {
        match self.text(key) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(bad(key, other, "`true` or `false`")),
        }
    }

    fn port(&self, key: &'static str) -> Result<Option<u16>, BadValue> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(bad(key, text, "a port from 1 to 65535")),
        }
    }
}

impl fmt::Display for CiliumConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigMap {}/{NAME}", self.namespace)
    }
}

fn bad(key: &'static str, value: &str, wants: &'static str) -> BadValue {
    BadValue {
        key,
        value: value.to_owned(),
        wants,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn config(data: &[(&str, &str)]) -> CiliumConfig {
        CiliumConfig {
            namespace: "kube-system".into(),
            data: data
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..CiliumConfig::default()
        }
    }

    #[rstest]
    #[case::absent(&[], false)]
    #[case::empty(&[("enable-bpf-tproxy", "")], false)]
    #[case::on(&[("enable-bpf-tproxy", "true")], true)]
    #[case::off(&[("enable-bpf-tproxy", "false")], false)]
    #[case::as_go_reads_it(&[("enable-bpf-tproxy", "1")], true)]
    fn bpf_leads_packets_only_where_the_config_says_so(
        #[case] data: &[(&str, &str)],
        #[case] want: bool,
    ) {
        assert_eq!(config(data).bpf_tproxy(), Ok(want));
    }

    #[test]
    fn a_value_that_is_none_is_told_with_its_key() {
        let error = config(&[("enable-bpf-tproxy", "maybe")])
            .bpf_tproxy()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "data.enable-bpf-tproxy: `maybe` is not `true` or `false`, Cilium's default is used"
        );
    }

    #[rstest]
    #[case::neither(&[], Ok(None))]
    #[case::both(&[("proxy-portrange-min", "11000"), ("proxy-portrange-max", "12000")], Ok(Some((11_000, 12_000))))]
    #[case::one(&[("proxy-portrange-min", "11000")], Ok(Some((11_000, 20_000))))]
    #[case::no_port(&[("proxy-portrange-min", "70000")], Err("proxy-portrange-min"))]
    #[case::backwards(&[("proxy-portrange-min", "30000")], Err("proxy-portrange-min"))]
    fn listeners_get_ports_of_the_clusters_range(
        #[case] data: &[(&str, &str)],
        #[case] want: Result<Option<(u16, u16)>, &'static str>,
    ) {
        assert_eq!(config(data).ports().map_err(|error| error.key), want);
    }

    #[test]
    fn an_ingress_that_does_not_say_follows_the_config() {
        let mut options = ingress::Options::default();
        let bad = config(&[
            ("enforce-ingress-https", "false"),
            ("ingress-default-lb-mode", "shared"),
            ("ingress-shared-lb-service-name", "front"),
            ("enable-ipv6", "perhaps"),
        ])
        .apply_to(&mut options);
        assert!(!options.enforce_https);
        assert_eq!(options.default_mode, Mode::Shared);
        assert_eq!(options.shared_service_name, "front");
        assert!(options.ipv6, "the default, because the value is none");
        assert_eq!(
            bad.iter().map(|bad| bad.key).collect::<Vec<_>>(),
            ["enable-ipv6"]
        );
    }
}
