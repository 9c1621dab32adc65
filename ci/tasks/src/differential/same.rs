//! Whether two clusters gave a request the same answer, by the promise that binds the modes:
//! status, service, listener, filter chain, route, cluster and what all parties saw are equal; the
//! endpoint is one of those that could be taken.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use nodeway_core::plan::NodePlan;
use nodeway_core::proxy::{Action, RouteAction, RouteSource, RouteTable, Terminal};
use nodeway_core::trace::{RouteStep, Step, Way};
use nodeway_sim::{Failed, Reply, Row, Sim};
use serde_json::Value;

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// What (`status`, `backend's header x-forwarded-for`).
    pub field: String,
    /// What the simulator says.
    pub sim: String,
    /// What really happened.
    pub lab: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: sim {}, lab {}", self.field, self.sim, self.lab)
    }
}

/// What came of a request, with the row that a report would have of it.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// Reply or failure.
    pub result: Result<&'a Reply, &'a Failed>,
    /// The row.
    pub row: &'a Row,
}

/// Header fields that are drawn, or that tell of time.
const DRAWN: [&str; 3] = [
    "x-request-id",
    "x-envoy-upstream-service-time",
    "content-length",
];

/// The simulator has no calendar.
const CALENDAR: &str = "date";

/// Everything in which the lab's answer is not the simulator's.
#[must_use]
pub fn differences(model: &Sim, sim: &Outcome<'_>, lab: &Outcome<'_>) -> Vec<Difference> {
    let mut sheet = Sheet::default();
    let (a, b) = (sim.row, lab.row);
    sheet.compare("status", &a.status, &b.status);
    sheet.compare("failure", &a.failure, &b.failure);
    sheet.compare("redirected", &a.redirected, &b.redirected);
    sheet.compare("reason", &a.reason, &b.reason);
    sheet.compare("proxy_node", &a.proxy_node, &b.proxy_node);
    sheet.compare("proxy_pod", &a.proxy_pod, &b.proxy_pod);
    sheet.compare("listener", &a.listener, &b.listener);
    sheet.compare("filter chain", &filter_chain(&a.way), &filter_chain(&b.way));
    sheet.compare("route", &route(a), &route(b));
    let allowed = Allowed::of(model, a);
    sheet.allow("cluster", &a.cluster, &b.cluster, &allowed.clusters);
    sheet.allow("service", &a.service, &b.service, &allowed.services);
    sheet.allow("endpoint", &a.endpoint, &b.endpoint, &allowed.endpoints);
    sheet.allow("pod", &a.pod, &b.pod, &allowed.pods);
    let saw = |seen: &Option<nodeway_sim::Seen>| seen.as_ref().map(ToString::to_string);
    sheet.compare("client_saw", &saw(&a.client_saw), &saw(&b.client_saw));
    sheet.compare("proxy_saw", &saw(&a.proxy_saw), &saw(&b.proxy_saw));
    sheet.compare("backend_saw", &backend_saw(a), &backend_saw(b));
    sheet.compare("tls", &a.tls, &b.tls);
    sheet.compare("proxies", &a.proxies, &b.proxies);
    sheet.compare("connections", &a.connections, &b.connections);
    // Another pod that could have been taken may be further away, and how far bytes came that nobody
    // answered is seen by nobody.
    if a.pod == b.pod && b.status.is_some() {
        sheet.compare("hops", &a.hops, &b.hops);
    }
    if let (Ok(a), Ok(b)) = (sim.result, lab.result) {
        headers(&mut sheet, a, b);
        body(&mut sheet, &a.body, &b.body);
    }
    sheet.0
}

/// Whom the backend saw; by `sidecar` that is its own pod's Envoy, whichever pod was taken.
fn backend_saw(row: &Row) -> Option<String> {
    let seen = row.backend_saw.as_ref()?.to_string();
    let own = row.pod.as_ref().map(|pod| format!("Pod {pod}"));
    let own = own.filter(|own| *own == seen && row.proxy_pod.is_some());
    Some(own.map_or(seen, |_| "its own Envoy".to_owned()))
}

/// What the client got beside the body.
fn headers(sheet: &mut Sheet, sim: &Reply, lab: &Reply) {
    let names = |reply: &Reply| -> BTreeSet<String> {
        let all = reply.headers.0.iter();
        let all = all.filter(|(name, _)| name != CALENDAR);
        all.map(|(name, _)| name.clone()).collect()
    };
    for name in names(sim).union(&names(lab)) {
        let of = |reply: &Reply| {
            let value = reply.headers.get(name).map(str::to_owned);
            value.map(|value| if is_drawn(name) { String::new() } else { value })
        };
        sheet.compare(&format!("header {name}"), &of(sim), &of(lab));
    }
}

/// What the backend saw of the request. Who it is has been compared already.
fn body(sheet: &mut Sheet, sim: &Value, lab: &Value) {
    for field in ["method", "path", "host", "body_bytes"] {
        let of = |body: &Value| body.pointer(&format!("/saw/{field}")).cloned();
        sheet.compare(&format!("backend's {field}"), &of(sim), &of(lab));
    }
    let fields = |body: &Value| {
        let headers = body.pointer("/saw/headers").and_then(Value::as_object);
        headers.cloned().unwrap_or_default()
    };
    let (a, b) = (fields(sim), fields(lab));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for name in names {
        let of = |all: &serde_json::Map<String, Value>| {
            let value = all.get(name).cloned();
            value.map(|value| if is_drawn(name) { Value::Null } else { value })
        };
        sheet.compare(&format!("backend's header {name}"), &of(&a), &of(&b));
    }
}

fn is_drawn(name: &str) -> bool {
    DRAWN.contains(&name)
}

#[derive(Default)]
struct Sheet(Vec<Difference>);

impl Sheet {
    fn compare<T: fmt::Debug + PartialEq>(&mut self, field: &str, sim: &T, lab: &T) {
        if sim != lab {
            self.0.push(Difference {
                field: field.to_owned(),
                sim: format!("{sim:?}"),
                lab: format!("{lab:?}"),
            });
        }
    }

    /// Equal, or another one that could have been taken as well.
    fn allow(
        &mut self,
        field: &str,
        sim: &Option<String>,
        lab: &Option<String>,
        allowed: &BTreeSet<String>,
    ) {
        let could_be = lab.as_ref().is_some_and(|it| allowed.contains(it));
        if !(sim.is_some() && could_be) {
            self.compare(field, sim, lab);
        }
    }
}

/// The place of the filter chain that was taken.
fn filter_chain(way: &Way) -> Option<(Option<usize>, bool)> {
    way.steps.iter().find_map(|(_, step)| match step {
        Step::FilterChain(step) => Some((step.choice.chosen, step.choice.by_default)),
        _ => None,
    })
}

fn route_step(way: &Way) -> Option<&RouteStep> {
    way.steps.iter().find_map(|(_, step)| match step {
        Step::Route(step) => Some(step.as_ref()),
        _ => None,
    })
}

/// The virtual host's and the route's place, and what the route matches. A virtual host without a
/// route that matches is, to Envoy's log, nothing.
fn route(row: &Row) -> Option<(usize, usize, String)> {
    let choice = route_step(&row.way)?.choice.as_ref()?;
    let (host, route) = (choice.virtual_host.as_ref()?, choice.route.as_ref()?);
    Some((host.index, route.index, route.description.to_string()))
}

/// What could have been taken in the place of what the simulator took.
#[derive(Debug, Default)]
struct Allowed {
    clusters: BTreeSet<String>,
    services: BTreeSet<String>,
    endpoints: BTreeSet<String>,
    pods: BTreeSet<String>,
}

impl Allowed {
    fn of(model: &Sim, row: &Row) -> Self {
        let mut allowed = Self::default();
        let plan = row.proxy_node.as_deref().and_then(|node| model.plan(node));
        for cluster in plan
            .map(|plan| drawn_from(plan, &row.way))
            .unwrap_or_default()
        {
            allowed.add_cluster(plan, &cluster);
        }
        for (_, step) in &row.way.steps {
            match step {
                Step::Endpoint(step) => {
                    for endpoint in &step.candidates {
                        allowed.add(endpoint.address, endpoint.pod.as_ref());
                    }
                }
                Step::Translation(step) => {
                    let table = model.services();
                    let key = (step.from.ip(), step.from.port());
                    for endpoint in table.entries.get(&key).iter().flat_map(|it| &it.endpoints) {
                        allowed.add(endpoint.address, endpoint.pod.as_ref());
                    }
                }
                _ => {}
            }
        }
        allowed
    }

    fn add(&mut self, address: SocketAddr, pod: Option<&nodeway_core::object::ObjectRef>) {
        self.endpoints.insert(address.to_string());
        self.pods.extend(pod.map(|pod| pod.path()));
    }

    fn add_cluster(&mut self, plan: Option<&NodePlan>, cluster: &str) {
        self.clusters.insert(cluster.to_owned());
        let planned = plan.and_then(|plan| plan.clusters.get(cluster));
        let endpoints = planned.map(|it| it.model.endpoints.as_str());
        let endpoints = endpoints.and_then(|name| plan?.endpoints.get(name));
        if let Some(endpoints) = endpoints {
            self.services
                .extend(endpoints.service.as_ref().map(|it| it.path()));
            for endpoint in &endpoints.endpoints {
                self.add(endpoint.address, endpoint.pod.as_ref());
            }
        }
    }
}

/// The clusters among which a draw was made on this way.
fn drawn_from(plan: &NodePlan, way: &Way) -> Vec<String> {
    let Some(step) = route_step(way) else {
        return Vec::new();
    };
    let choice = step.choice.as_ref();
    let drawn = choice.is_some_and(
        |choice| matches!(&choice.action, Action::Forward(forward) if forward.drawn.is_some()),
    );
    let place =
        choice.and_then(|it| Some((it.virtual_host.as_ref()?.index, it.route.as_ref()?.index)));
    let (true, Some((host, route))) = (drawn, place) else {
        return Vec::new();
    };
    let action: Option<&RouteAction> = table(plan, &step.table)
        .and_then(|table| table.virtual_hosts.get(host)?.routes.get(route))
        .map(|route| &route.action);
    let clusters = action.map(RouteAction::clusters).unwrap_or_default();
    clusters.into_iter().map(str::to_owned).collect()
}

/// A table by its name, fetched or written in a listener.
fn table<'a>(plan: &'a NodePlan, name: &str) -> Option<&'a RouteTable> {
    if let Some(planned) = plan.routes.get(name) {
        return Some(&planned.model);
    }
    let mut chains = plan.listeners.values().flat_map(|it| {
        it.model
            .filter_chains
            .iter()
            .chain(&it.model.default_filter_chain)
    });
    chains.find_map(|chain| match &chain.terminal {
        Terminal::Http(manager) => match &manager.routes {
            RouteSource::Inline(table) if table.name == name => Some(table.as_ref()),
            _ => None,
        },
        _ => None,
    })
}
