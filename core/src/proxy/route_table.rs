//! A RouteConfiguration: from a request's host to a virtual host, from its path to a route.

use std::sync::Arc;

use prost_reflect::DynamicMessage;

use super::action::{Action, RouteChoice, RouteTaken, VirtualHostTaken};
use super::domains::Domains;
use super::request::{Context, Request, lower, without_port};
use super::route_action::{ForwardAction, read_mirrors};
use super::{HeaderEdits, Lost, ReadError, ResolvedEdits, Route, RouteAction, VirtualHost, Why};
use crate::envoy::{Fields, Unread, validate};

/// A RouteConfiguration.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTable {
    /// Its name.
    pub name: String,
    /// Its virtual hosts in order.
    pub virtual_hosts: Vec<VirtualHost>,
    domains: Domains,
    ignore_port: bool,
    ignore_path_parameters: bool,
    specific_edits_last: bool,
    host_header: Option<String>,
    request: HeaderEdits,
    response: HeaderEdits,
    /// Fields of the table itself on which every choice hangs and that are not modelled.
    undecided: Vec<String>,
    /// Fields that are set and not modelled, in all of it.
    pub not_simulated: Vec<String>,
}

const MAX_BODY: u32 = 4096;

impl RouteTable {
    /// Reads a RouteConfiguration.
    ///
    /// # Errors
    ///
    /// What Envoy would refuse.
    pub fn read(message: &DynamicMessage) -> Result<Self, ReadError> {
        validate(message)?;
        let unread = Unread::default();
        let mut table = Self::read_fields(&Fields::new(message, "", &unread))?;
        unread.extend(&table.not_simulated);
        table.not_simulated = unread.paths();
        Ok(table)
    }

    /// Reads a RouteConfiguration at its place in another message, which is already validated.
    pub(super) fn read_fields(fields: &Fields<'_>) -> Result<Self, ReadError> {
        let beside = Unread::default();
        read_mirrors(fields)?;
        fields.skip("validate_clusters");
        let elsewhere = [
            "internal_only_headers",
            "cluster_specifier_plugins",
            "request_mirror_policies",
            "typed_per_filter_config",
            "metadata",
        ];
        fields.leave_to(&elsewhere, &beside);
        let max_body = fields
            .opt_number("max_direct_response_body_size_bytes")
            .unwrap_or(MAX_BODY);
        let hosts = fields.messages("virtual_hosts").into_iter();
        let virtual_hosts: Vec<_> = hosts
            .map(|host| VirtualHost::read(host, max_body))
            .collect::<Result<_, _>>()?;
        let mut undecided = Vec::new();
        for name in ["vhds", "route_specifiers"] {
            if fields.has(name) {
                undecided.push(fields.path_of(name));
            }
        }
        let host_header = Some(fields.text("vhost_header").to_ascii_lowercase());
        let mut table = Self {
            name: fields.text("name"),
            domains: Domains::read(&virtual_hosts, &fields.path_of("virtual_hosts"))?,
            virtual_hosts,
            ignore_port: fields.flag("ignore_port_in_host_matching"),
            ignore_path_parameters: fields.flag("ignore_path_parameters_in_path_matching"),
            specific_edits_last: fields.flag("most_specific_header_mutations_wins"),
            host_header: host_header.filter(|name| !name.is_empty()),
            request: HeaderEdits::read(fields, "request")?,
            response: HeaderEdits::read(fields, "response")?,
            undecided,
            not_simulated: Vec::new(),
        };
        beside.extend(&table.undecided);
        for host in &table.virtual_hosts {
            beside.extend(&host.undecided);
            beside.extend(&host.not_simulated);
            for route in &host.routes {
                beside.extend(&route.matches.not_simulated);
                beside.extend(&route.undecided);
                beside.extend(&route.not_simulated);
            }
        }
        table.not_simulated = beside.paths();
        Ok(table)
    }

    /// The clusters that routes name, each with the route's path in the resource.
    pub fn clusters(&self) -> impl Iterator<Item = (String, &str)> {
        self.virtual_hosts.iter().enumerate().flat_map(|(h, host)| {
            host.routes.iter().enumerate().flat_map(move |(r, route)| {
                let clusters = match &route.action {
                    RouteAction::Forward(forward) => forward.clusters(),
                    _ => Vec::new(),
                };
                let path = format!("virtualHosts[{h}].routes[{r}].route");
                clusters
                    .into_iter()
                    .map(move |cluster| (path.clone(), cluster))
            })
        })
    }

    /// What happens to a request about whose surroundings nothing is known.
    #[must_use]
    pub fn route(&self, request: &Request) -> RouteChoice {
        self.route_in(request, &Context::default())
    }

    /// What happens to a request.
    #[must_use]
    pub fn route_in(&self, request: &Request, context: &Context) -> RouteChoice {
        let mut choice = RouteChoice {
            virtual_host: None,
            route: None,
            action: Action::NotFound {
                why: Why::Stated("the request has no host"),
                lost: Vec::new(),
            },
            response: ResolvedEdits::default(),
            not_simulated: Vec::new(),
        };
        if !self.undecided.is_empty() {
            choice.action = Action::NotSimulated {
                fields: self.undecided.clone(),
            };
            return choice;
        }
        // A table that has all hosts asks for none.
        let Some(host) = self
            .host_of(request)
            .or_else(|| self.domains.only_any().then(String::new))
        else {
            return choice;
        };
        let Some(taken) = self.virtual_host(&host) else {
            let why = Why::Stated("no virtual host has the request's host among its domains");
            choice.action = Action::NotFound {
                why,
                lost: self.domains.all_lost(&host),
            };
            return choice;
        };
        let index = taken.index;
        choice.virtual_host = Some(taken);
        if let Some(virtual_host) = self.virtual_hosts.get(index) {
            self.route_at(virtual_host, request, context, &mut choice);
        }
        choice
    }

    /// The host by which a virtual host is looked up: lower case, perhaps without its port.
    fn host_of(&self, request: &Request) -> Option<String> {
        let host = match &self.host_header {
            Some(name) => request.header(name).first().copied()?,
            None => request.authority.as_str(),
        };
        let host = if self.ignore_port {
            without_port(host)
        } else {
            host
        };
        (!host.is_empty()).then(|| lower(host).into_owned())
    }

    fn virtual_host(&self, host: &str) -> Option<VirtualHostTaken> {
        let mut found = self.domains.matching(host);
        let (winner, why) = found.next()?;
        let virtual_host = self.virtual_hosts.get(winner.host)?;
        let lost = found.map(|(domain, _)| Lost {
            candidate: Arc::clone(&domain.written),
            why: Why::LessSpecific(Arc::clone(&winner.written)),
        });
        Some(VirtualHostTaken {
            index: winner.host,
            name: Arc::clone(&virtual_host.name),
            domain: Arc::clone(&winner.written),
            why,
            lost: lost.collect(),
        })
    }

    fn route_at(
        &self,
        host: &VirtualHost,
        request: &Request,
        context: &Context,
        choice: &mut RouteChoice,
    ) {
        let not_found = |why| Action::NotFound {
            why: Why::Stated(why),
            lost: Vec::new(),
        };
        if request.forwarded_proto().is_empty() {
            choice.action = not_found("the request says neither http nor https");
            return;
        }
        if host.needs_tls(request) {
            // The host keeps its port, whatever it is.
            let location = format!("https://{}{}", request.authority, request.path);
            choice.action = Action::Redirect {
                status: 301,
                location,
            };
            return;
        }
        if !host.undecided.is_empty() {
            choice.action = Action::NotSimulated {
                fields: host.undecided.clone(),
            };
            return;
        }
        let mut lost = Vec::new();
        let path: Arc<str> = request.bare_path().into();
        for (index, route) in host.routes.iter().enumerate() {
            match route
                .matches
                .check(request, &path, context, self.ignore_path_parameters)
            {
                Err(why) => lost.push(Lost {
                    candidate: Arc::clone(&route.matches.description),
                    why,
                }),
                Ok(()) => {
                    choice.route = Some(RouteTaken {
                        index,
                        name: Arc::clone(&route.name),
                        description: Arc::clone(&route.matches.description),
                        why: "the first route of the virtual host whose conditions all hold",
                        lost,
                    });
                    let unknown = &route.matches.not_simulated;
                    if unknown.is_empty() {
                        self.act(host, route, request, context, choice);
                    } else {
                        choice.action = Action::NotSimulated {
                            fields: unknown.clone(),
                        };
                    }
                    return;
                }
            }
        }
        let why = Why::Stated("no route of the virtual host matches");
        choice.action = Action::NotFound { why, lost };
    }

    fn act(
        &self,
        host: &VirtualHost,
        route: &Route,
        request: &Request,
        context: &Context,
        choice: &mut RouteChoice,
    ) {
        choice.not_simulated.extend(
            host.not_simulated
                .iter()
                .chain(&route.not_simulated)
                .cloned(),
        );
        if !route.undecided.is_empty() {
            choice.action = Action::NotSimulated {
                fields: route.undecided.clone(),
            };
            return;
        }
        let unmodelled = || Action::NotSimulated {
            fields: vec!["a format string of the route".to_owned()],
        };
        let mut left = request.clone();
        match &route.action {
            RouteAction::Forward(forward) => {
                self.forward((host, route), forward, request, context, choice);
                return;
            }
            RouteAction::Redirect(redirect) => {
                let location = redirect.location(request, &route.matches.path, context);
                let status = redirect.status();
                choice.action = location
                    .map_or_else(unmodelled, |location| Action::Redirect { status, location });
                redirect.leave(&mut left, &route.matches.path, context);
            }
            RouteAction::Direct { status, body } => {
                choice.action = Action::Direct {
                    status: *status,
                    body: Arc::clone(body),
                };
            }
            RouteAction::Other => choice.action = unmodelled(),
        }
        let levels = [&route.response, &host.response, &self.response];
        let unknown = &mut choice.not_simulated;
        choice.response = self.response_edits(None, &levels, &left, context, unknown);
    }

    fn forward(
        &self,
        (host, route): (&VirtualHost, &Route),
        forward: &ForwardAction,
        request: &Request,
        context: &Context,
        choice: &mut RouteChoice,
    ) {
        let (cluster, weighted) = forward.target(request);
        let mut edited = request.clone();
        let unknown = &mut choice.not_simulated;
        if let Some((entry, _)) = weighted {
            entry.edit(&mut edited, context, unknown);
        }
        // By default the most specific level comes first, so that less specific ones win.
        let mut levels = [&route.request, &host.request, &self.request];
        if self.specific_edits_last {
            levels.reverse();
        }
        for level in levels {
            level.apply(&mut edited, context, unknown);
        }
        let target = (cluster, weighted.map(|(_, drawn)| drawn));
        let forward = forward.forward(edited, target, &route.matches.path, context);
        choice.action = forward.map_or_else(
            || Action::NotSimulated {
                fields: vec![format!(
                    "a format string of the route `{}`",
                    route.matches.description
                )],
            },
            |forward| Action::Forward(Box::new(forward)),
        );
        let levels = [&route.response, &host.response, &self.response];
        let drawn = weighted.map(|(entry, _)| &entry.response);
        // Values for the response are made of the request as the cluster got it.
        if let Action::Forward(forward) = &mut choice.action {
            let left = forward.left(request);
            let unknown = &mut choice.not_simulated;
            choice.response = self.response_edits(drawn, &levels, &left, context, unknown);
            forward.cluster_not_found_edits =
                self.response_edits(drawn, &levels, request, context, &mut Vec::new());
        }
    }

    /// Those of a cluster that was drawn come first, whichever level is to win
    /// (`WeightedClusterEntry::finalizeResponseHeaders`).
    fn response_edits(
        &self,
        drawn: Option<&HeaderEdits>,
        levels: &[&HeaderEdits],
        request: &Request,
        context: &Context,
        unknown: &mut Vec<String>,
    ) -> ResolvedEdits {
        let mut edits = ResolvedEdits::default();
        let mut add = |level: &&HeaderEdits| edits.extend(level.resolve(request, context, unknown));
        drawn.iter().for_each(&mut add);
        if self.specific_edits_last {
            levels.iter().rev().for_each(&mut add);
        } else {
            levels.iter().for_each(&mut add);
        }
        edits
    }
}
