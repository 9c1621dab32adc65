//! What a config may call its own, and what it may reach for: its namespace's.
//!
//! One Envoy serves every namespace of its node, and knows clusters, endpoints and certificates by
//! name alone. Listeners and routes are forced into their config's namespace when they are completed;
//! other names may be written in full, and under a name of another namespace a config would take
//! over another's requests, or show another's certificate. Files, sockets and loopback of the node are
//! nobody's: one of the sockets is the agent's, who tells private keys. Nor may a config bring a program
//! along: in Envoy it has all that Envoy has. So [of extensions](extension) only those are taken that are known. Cilium checks none of it; here the config is left out.
//! *Sending* to what stands elsewhere is free, as it is for every pod, and whoever may write a
//! `CiliumClusterwideEnvoyConfig` may do all.

mod extension;

use std::net::IpAddr;

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use crate::envoy::bootstrap::AGENT;
use crate::envoy::{Resource, ResourceKind, unpack};
use crate::ingress;
use crate::object::{Kind, ObjectRef};
use extension::keeps_to_itself;

/// Something that a config does beyond its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Overreach {
    /// The field, in the resource.
    pub(super) field: String,
    pub(super) reason: String,
}

/// The first thing that a completed resource does beyond its config's namespace.
pub(super) fn overreach(config: &ObjectRef, resource: &Resource) -> Option<Overreach> {
    if config.kind == Kind::CiliumClusterwideEnvoyConfig {
        return None;
    }
    defines(config, resource).or_else(|| reaches(config, &resource.message, ""))
}

/// Whether a config may show clients the certificate of a Secret that it names by its copy.
/// Cilium's own configs serve the Ingresses of all namespaces.
pub(super) fn may_show(config: &ObjectRef, secret: &ObjectRef, cilium_namespace: &str) -> bool {
    config.kind == Kind::CiliumClusterwideEnvoyConfig
        || [&secret.namespace, cilium_namespace].contains(&config.namespace.as_str())
        || secret.namespace == ingress::Options::default().secrets_namespace
}

fn defines(config: &ObjectRef, resource: &Resource) -> Option<Overreach> {
    let (kind, name) = (resource.kind, &resource.name);
    let by_name = match kind {
        ResourceKind::Cluster | ResourceKind::ClusterLoadAssignment | ResourceKind::Secret => true,
        ResourceKind::Listener | ResourceKind::RouteConfiguration => false,
    };
    (by_name && !is_of(name, &config.namespace)).then(|| Overreach {
        field: kind.name_field().to_owned(),
        reason: format!(
            "a {kind} `{name}` is not one of the namespace `{}`",
            config.namespace
        ),
    })
}

fn is_of(name: &str, namespace: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(first, _)| first == namespace)
}

/// Looks through a message and all in it, also in an `Any`.
fn reaches(config: &ObjectRef, message: &DynamicMessage, path: &str) -> Option<Overreach> {
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        return packed(config, message, path);
    }
    if let Some((field, reason)) = reach(config, message) {
        let field = joined(path, field);
        return Some(Overreach { field, reason });
    }
    message.fields().find_map(|(field, value)| {
        let path = joined(path, field.json_name());
        match value {
            Value::Message(inner) => reaches(config, inner, &path),
            Value::List(items) => items.iter().enumerate().find_map(|(index, item)| {
                let path = format!("{path}[{index}]");
                match item {
                    Value::String(text) => shows_variable(text, path),
                    item => reaches(config, item.as_message()?, &path),
                }
            }),
            Value::Map(entries) => entries.iter().find_map(|(key, value)| {
                let path = joined(&path, key.as_str().unwrap_or_default());
                match value {
                    Value::String(text) => shows_variable(text, path),
                    value => reaches(config, value.as_message()?, &path),
                }
            }),
            Value::String(text) => shows_variable(text, path),
            _ => None,
        }
    })
}

/// What an extension's own config does, or that nobody knows it.
fn packed(config: &ObjectRef, any: &DynamicMessage, path: &str) -> Option<Overreach> {
    let inner = unpack(any).and_then(|inner| reaches(config, &inner, path));
    inner.or_else(|| {
        let url = any.get_field_by_name("type_url")?;
        let url = url.as_str().filter(|it| !it.is_empty())?;
        let name = url.rsplit_once('/').map_or(url, |(_, name)| name);
        (!keeps_to_itself(name)).then(|| Overreach {
            field: path.to_owned(),
            reason: format!(
                "`{name}` is not among the extensions that are known to keep to a namespace"
            ),
        })
    })
}

/// Envoy's format strings stand in fields of many kinds, and nowhere else does anything look like that.
fn shows_variable(text: &str, field: String) -> Option<Overreach> {
    let (_, rest) = text.split_once("%ENVIRONMENT(")?;
    let name = rest.split(')').next().unwrap_or_default();
    Some(Overreach {
        field,
        reason: format!("the variable `{name}` is the node's own"),
    })
}

/// Where only what runs on the node itself gets to.
fn is_nodes_own(address: &str) -> bool {
    let own = |it: IpAddr| it.to_canonical().is_loopback() || it.is_unspecified();
    address
        .parse()
        .map_or_else(|_| address.eq_ignore_ascii_case("localhost"), own)
}

/// What one message by itself reaches for: the field and the reason.
fn reach(config: &ObjectRef, message: &DynamicMessage) -> Option<(&'static str, String)> {
    let text = |field: &str| {
        let there = message.has_field_by_name(field);
        let value = there.then(|| message.get_field_by_name(field)).flatten()?;
        value.as_str().map(str::to_owned)
    };
    let node = |field, what: String| Some((field, format!("{what} is the node's own")));
    let program = |field, what: &str| {
        let reason = format!("{what} runs in the node's Envoy, with the keys and requests of all");
        Some((field, reason))
    };
    let agents = |field, in_json| {
        let cluster = text(field).filter(|it| it == AGENT)?;
        node(in_json, format!("the cluster `{cluster}`"))
    };
    match message.descriptor().full_name() {
        "envoy.config.core.v3.Pipe" => {
            let path = text("path").unwrap_or_default();
            node("path", format!("the socket `{path}`"))
        }
        "envoy.config.endpoint.v3.Endpoint" => {
            let address = endpoint_address(message).filter(|it| is_nodes_own(it))?;
            node(
                "address.socketAddress.address",
                format!("the address `{address}`"),
            )
        }
        "envoy.config.core.v3.GrpcService.GoogleGrpc" => {
            let target = text("target_uri").filter(|it| it.trim_start().starts_with("unix"))?;
            node("targetUri", format!("the socket `{target}`"))
        }
        "envoy.extensions.filters.http.lua.v3.Lua"
        | "envoy.extensions.filters.http.lua.v3.LuaPerRoute" => program("", "a Lua filter"),
        "envoy.extensions.wasm.v3.PluginConfig" => program("vmConfig", "a Wasm plugin"),
        "envoy.extensions.dynamic_modules.v3.DynamicModuleConfig" => {
            program("name", "a dynamic module")
        }
        "envoy.config.core.v3.GrpcService.EnvoyGrpc" => agents("cluster_name", "clusterName"),
        "envoy.config.core.v3.HttpUri" => agents("cluster", "cluster"),
        "envoy.config.core.v3.DataSource" => {
            let file = text("filename").map(|it| ("filename", format!("the file `{it}`")));
            let variable = || {
                let name = text("environment_variable")?;
                Some(("environmentVariable", format!("the variable `{name}`")))
            };
            let (field, what) = file.or_else(variable)?;
            node(field, what)
        }
        "envoy.config.core.v3.ConfigSource" | "envoy.config.core.v3.PathConfigSource" => {
            node("path", format!("the file `{}`", text("path")?))
        }
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let path =
                text("path").filter(|it| !["/dev/stdout", "/dev/stderr"].contains(&&**it))?;
            node("path", format!("the file `{path}`"))
        }
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig" => {
            let (name, copies) = (text("name")?, ingress::Options::default().secrets_namespace);
            let own = [&config.namespace, &copies]
                .iter()
                .any(|it| is_of(&name, it));
            let reason = || {
                let own = &config.namespace;
                format!("the Secret `{name}` is not one of the namespace `{own}`")
            };
            (!own).then(|| ("name", reason()))
        }
        _ => chosen_by_client(message),
    }
}

/// Where whoever sends a request chooses the cluster or the address it goes to: the agent's cluster, the node's loopback
/// could be chosen too.
fn chosen_by_client(message: &DynamicMessage) -> Option<(&'static str, String)> {
    if message.descriptor().full_name() == "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig" {
        // Metadata may be made of a header.
        let by = [
            ("use_http_header", "useHttpHeader"),
            ("metadata_key", "metadataKey"),
        ];
        let (_, field) = by
            .into_iter()
            .find(|(name, _)| message.has_field_by_name(name))?;
        let reason = "a client chooses the address by a header, the node's own among them";
        return Some((field, reason.to_owned()));
    }
    let header = message.get_field_by_name("cluster_header")?;
    let header = header.as_str().filter(|it| !it.is_empty())?;
    let reason =
        format!("by the header `{header}` a client chooses among all of the node's clusters");
    Some(("clusterHeader", reason))
}

/// The address of an endpoint that has one and not a socket.
fn endpoint_address(endpoint: &DynamicMessage) -> Option<String> {
    let mut message = endpoint.clone();
    for field in ["address", "socket_address"] {
        let there = message.has_field_by_name(field);
        let inner = there.then(|| message.get_field_by_name(field)).flatten()?;
        message = inner.as_message()?.clone();
    }
    let address = message.get_field_by_name("address")?;
    address.as_str().map(str::to_owned)
}

fn joined(path: &str, field: &str) -> String {
    match (path, field) {
        ("", only) | (only, "") => only.to_owned(),
        (path, field) => format!("{path}.{field}"),
    }
}
