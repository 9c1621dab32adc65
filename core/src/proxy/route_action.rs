//! What a route does with a request that it takes.

use std::sync::Arc;
use std::time::Duration;

use super::request::{Context, Request};
use super::{
    Drawn, Forward, HostRewrite, PathMatcher, PathRewrite, ReadError, Redirect, ResolvedEdits,
    WeightedClusters,
};
use crate::envoy::{Fields, Unread};

/// A route's action.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteAction {
    /// It forwards.
    Forward(Box<ForwardAction>),
    /// It redirects.
    Redirect(Box<Redirect>),
    /// It answers.
    Direct {
        /// The status.
        status: u16,
        /// The body.
        body: Arc<[u8]>,
    },
    /// An action that is not modelled: noted as unread.
    Other,
}

/// `RouteAction`: where a request goes and what becomes of it on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardAction {
    target: Target,
    mirrors: Vec<String>,
    pub(super) path: Option<PathRewrite>,
    pub(super) host: Option<HostRewrite>,
    append_forwarded_host: bool,
    timeout: Option<Duration>,
    cluster_not_found: u16,
}

impl RouteAction {
    /// Every cluster to which it may send a request, as far as no header says.
    #[must_use]
    pub fn clusters(&self) -> Vec<&str> {
        match self {
            Self::Forward(forward) => forward.targets(),
            Self::Redirect(_) | Self::Direct { .. } | Self::Other => Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Target {
    Cluster(String),
    Header(String),
    Weighted(WeightedClusters),
    Other,
}

/// What a request has to do with a cluster beside being sent there: read by nobody here, and
/// without influence on where it goes.
const BESIDE: [&str; 19] = [
    "metadata_match",
    "idle_timeout",
    "flush_timeout",
    "early_data_policy",
    "retry_policy",
    "retry_policy_typed_config",
    "request_mirror_policies",
    "priority",
    "rate_limits",
    "include_vh_rate_limits",
    "hash_policy",
    "cors",
    "max_grpc_timeout",
    "grpc_timeout_offset",
    "upgrade_configs",
    "internal_redirect_policy",
    "internal_redirect_action",
    "max_internal_redirects",
    "hedge_policy",
];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

impl RouteAction {
    /// Reads the `action` of a route.
    pub(super) fn read(
        route: &Fields<'_>,
        matcher: &PathMatcher,
        max_body: u32,
        beside: &Unread,
    ) -> Result<Self, ReadError> {
        Ok(match route.which("action").as_deref() {
            Some("route") => match route.message("route") {
                Some(fields) => {
                    Self::Forward(Box::new(ForwardAction::read(&fields, matcher, beside)?))
                }
                None => Self::Other,
            },
            Some("redirect") => match route.message("redirect") {
                Some(fields) => Self::Redirect(Box::new(Redirect::read(&fields)?)),
                None => Self::Other,
            },
            Some("direct_response") => match route.message("direct_response") {
                Some(fields) => read_direct(&fields, max_body)?,
                None => Self::Other,
            },
            _ => Self::Other,
        })
    }
}

fn read_direct(fields: &Fields<'_>, max_body: u32) -> Result<RouteAction, ReadError> {
    let status = u16::try_from(fields.number("status")).unwrap_or_default();
    let body: Arc<[u8]> = match fields.message("body") {
        Some(body) => match body.which("specifier").as_deref() {
            Some("inline_string") => body.text("inline_string").into_bytes().into(),
            Some("inline_bytes") => body.bytes("inline_bytes").unwrap_or_default().into(),
            _ => Arc::default(),
        },
        None => Arc::default(),
    };
    if u32::try_from(body.len()).is_ok_and(|length| length <= max_body) {
        return Ok(RouteAction::Direct { status, body });
    }
    let reason = format!(
        "has {} bytes, and a direct response takes at most {max_body}",
        body.len()
    );
    Err(ReadError::new(fields.path_of("body"), reason))
}

impl ForwardAction {
    fn read(
        fields: &Fields<'_>,
        matcher: &PathMatcher,
        beside: &Unread,
    ) -> Result<Self, ReadError> {
        let mirrors = check_beside(fields)?;
        // Whoever says it, even zero for no limit, has no time-out for the response any more: Envoy
        // does not look at `timeout` then. Cilium's operator says zero for every route.
        let limits = fields.message_into("max_stream_duration", beside);
        let limited_by_stream = limits.is_some();
        if let Some(limits) = limits
            && let Some(limit) = limits.duration("max_stream_duration")
            && !limit.is_zero()
        {
            beside.note(limits.path_of("max_stream_duration"));
        }
        fields.leave_to(&BESIDE, beside);
        let target = match fields.which("cluster_specifier").as_deref() {
            Some("cluster") => Target::Cluster(fields.text("cluster")),
            Some("cluster_header") => {
                Target::Header(fields.text("cluster_header").to_ascii_lowercase())
            }
            Some("weighted_clusters") => match fields.message("weighted_clusters") {
                Some(weighted) => Target::Weighted(WeightedClusters::read(&weighted)?),
                None => Target::Other,
            },
            _ => Target::Other,
        };
        let timeout = Some(fields.duration("timeout").unwrap_or(DEFAULT_TIMEOUT))
            .filter(|it| !it.is_zero() && !limited_by_stream);
        let cluster_not_found = match fields.choice("cluster_not_found_response_code").as_str() {
            "NOT_FOUND" => 404,
            "INTERNAL_SERVER_ERROR" => 500,
            _ => 503,
        };
        Ok(Self {
            target,
            mirrors,
            path: PathRewrite::read(fields, matcher)?,
            host: HostRewrite::read(fields)?,
            append_forwarded_host: fields.flag("append_x_forwarded_host"),
            timeout,
            cluster_not_found,
        })
    }

    fn targets(&self) -> Vec<&str> {
        match &self.target {
            Target::Cluster(name) => vec![name],
            Target::Weighted(weighted) => weighted.names().collect(),
            Target::Header(_) | Target::Other => Vec::new(),
        }
    }

    /// The clusters that the route can forward or mirror to.
    pub(super) fn clusters(&self) -> Vec<&str> {
        let mut clusters = self.targets();
        clusters.extend(self.mirrors.iter().map(String::as_str));
        clusters
    }

    /// The cluster for a request, and the weighted entry that was drawn.
    pub(super) fn target(
        &self,
        request: &Request,
    ) -> (String, Option<(&super::weighted::Weighted, Drawn)>) {
        let first = |name: &str| {
            request
                .header(name)
                .first()
                .copied()
                .unwrap_or_default()
                .to_owned()
        };
        match &self.target {
            Target::Cluster(name) => (name.clone(), None),
            Target::Header(name) => (first(name), None),
            Target::Weighted(weighted) => match weighted.draw(request) {
                Some((entry, drawn)) if entry.name.is_empty() => {
                    (first(&entry.cluster_header), Some((entry, drawn)))
                }
                Some((entry, drawn)) => (entry.name.clone(), Some((entry, drawn))),
                None => (String::new(), None),
            },
            Target::Other => (String::new(), None),
        }
    }

    /// Rewrites host and path of a request whose headers are already edited.
    pub(super) fn forward(
        &self,
        mut request: Request,
        (cluster, drawn): (String, Option<Drawn>),
        matcher: &PathMatcher,
        context: &Context,
    ) -> Option<Forward> {
        let host = self
            .host
            .as_ref()
            .map_or(Some(String::new()), |host| host.apply(&request, context))?;
        if !host.is_empty() {
            if self.append_forwarded_host {
                let mut hosts = request.header("x-forwarded-host").join(",");
                if !hosts.is_empty() {
                    hosts.push(',');
                }
                hosts.push_str(&request.authority);
                request.set("x-forwarded-host", &hosts);
            }
            request.authority = host;
        }
        let mut original_path = None;
        if let Some(rewrite) = &self.path {
            let new = rewrite.apply(&request, matcher, context)?;
            let old = std::mem::replace(&mut request.path, new);
            request.set("x-envoy-original-path", &old);
            original_path = Some(old);
        }
        Some(Forward {
            cluster,
            drawn,
            authority: request.authority,
            host_of_endpoint: matches!(self.host, Some(HostRewrite::Endpoint)),
            path: request.path,
            original_path,
            headers: request.headers,
            timeout: self.timeout,
            cluster_not_found: self.cluster_not_found,
            cluster_not_found_edits: ResolvedEdits::default(),
        })
    }
}

/// What Envoy refuses in the parts that are not modelled. The clusters of mirrors come back.
fn check_beside(fields: &Fields<'_>) -> Result<Vec<String>, ReadError> {
    let aside = Unread::default();
    let mut upgrades = Vec::new();
    for upgrade in fields.messages("upgrade_configs") {
        let upgrade = upgrade.scoped(&aside);
        let kind = upgrade.text("upgrade_type").to_ascii_lowercase();
        if upgrades.contains(&kind) {
            let reason =
                format!("the upgrade `{kind}` is there twice; names do not differ by case");
            return Err(ReadError::new(upgrade.path_of("upgrade_type"), reason));
        }
        if upgrade.has("connect_config") && !matches!(kind.as_str(), "connect" | "connect-udp") {
            let reason = format!("only CONNECT and CONNECT-UDP take it, not `{kind}`");
            return Err(ReadError::new(upgrade.path_of("connect_config"), reason));
        }
        upgrades.push(kind);
    }
    let mirrors = read_mirrors(fields)?;
    if let Some(retry) = fields.message_into("retry_policy", &aside) {
        check_retry(&retry)?;
    }
    Ok(mirrors)
}

/// The clusters that a route, a virtual host or a table mirrors to.
pub(super) fn read_mirrors(fields: &Fields<'_>) -> Result<Vec<String>, ReadError> {
    let aside = Unread::default();
    let mut mirrors = Vec::new();
    for mirror in fields.messages("request_mirror_policies") {
        let mirror = mirror.scoped(&aside);
        let cluster = mirror.text("cluster");
        if cluster.is_empty() == mirror.text("cluster_header").is_empty() {
            let reason = "needs exactly one of cluster and cluster_header";
            return Err(ReadError::new(mirror.path(), reason));
        }
        mirrors.extend(Some(cluster).filter(|cluster| !cluster.is_empty()));
    }
    Ok(mirrors)
}

/// Reads what a retry policy says about intervals, which must grow.
pub(super) fn check_retry(retry: &Fields<'_>) -> Result<(), ReadError> {
    let Some(backoff) = retry.message("retry_back_off") else {
        return Ok(());
    };
    // Envoy counts in milliseconds, from one.
    let millis = |name: &str| backoff.duration(name).map(|it| it.as_millis().max(1));
    match (millis("base_interval"), millis("max_interval")) {
        (Some(base), Some(max)) if max < base => {
            let reason = "is shorter than base_interval; make it at least as long";
            Err(ReadError::new(backoff.path_of("max_interval"), reason))
        }
        _ => Ok(()),
    }
}
