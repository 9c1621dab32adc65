//! What is drawn, and how often each feature was: a suite that never draws a feature holds nothing of it.

use std::collections::BTreeMap;
use std::fmt;

use nodeway_sim::Random;

/// How often each feature was drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Feature, u64>);

impl Tally {
    /// How often a feature was drawn.
    #[must_use]
    pub fn of(&self, feature: Feature) -> u64 {
        self.0.get(&feature).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (feature, times) in &other.0 {
            *self.0.entry(*feature).or_default() += times;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for feature in Feature::ALL {
            writeln!(f, "{:<48} {:>9}", feature.name(), self.of(*feature))?;
        }
        Ok(())
    }
}

/// A stream of luck that counts which features it gave.
pub(super) struct Luck {
    random: Random,
    pub(super) tally: Tally,
}

impl Luck {
    pub(super) fn new(random: Random) -> Self {
        let tally = Tally::default();
        Self { random, tally }
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.random.below(bound)).unwrap_or(0)
    }

    /// True once in so many times.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of several; there must be one.
    pub(super) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let at = self.below(among.len());
        #[expect(
            clippy::indexing_slicing,
            reason = "below the length; every list here is a literal that has something"
        )]
        among[at]
    }

    /// One of several features, counted.
    pub(super) fn feature(&mut self, among: &[Feature]) -> Feature {
        let feature = self.pick(among);
        self.count(feature);
        feature
    }

    /// Whether a feature is drawn, once in so many times, counted.
    pub(super) fn has(&mut self, feature: Feature, once_in: usize) -> bool {
        let has = self.once_in(once_in);
        if has {
            self.count(feature);
        }
        has
    }

    pub(super) fn count(&mut self, feature: Feature) {
        *self.tally.0.entry(feature).or_default() += 1;
    }
}

macro_rules! features {
    ($($feature:ident $name:literal,)*) => {
        /// What the model claims to do as Envoy does, as far as this suite draws it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Feature {
            $(#[doc = $name] $feature,)*
        }

        impl Feature {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$feature),*];

            /// Its name, by the fields that it is about.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$feature => $name,)*
                }
            }
        }
    };
}

features! {
    DomainExact "domain: exact",
    DomainPort "domain: with a port",
    DomainSuffix "domain: *.suffix",
    DomainPrefix "domain: prefix.*",
    DomainAny "domain: *",
    IgnorePort "ignore_port_in_host_matching",
    IgnorePathParameters "ignore_path_parameters_in_path_matching",
    SpecificWins "most_specific_header_mutations_wins",
    HostHeader "vhost_header",
    StripAnyPort "strip_any_host_port",
    StripOwnPort "strip_matching_host_port",
    StripDot "strip_trailing_host_dot",
    RequireTls "require_tls: ALL",
    RequireTlsExternal "require_tls: EXTERNAL_ONLY",
    PathPrefix "match: prefix",
    PathExact "match: path",
    PathSeparated "match: path_separated_prefix",
    PathRegex "match: safe_regex",
    PathTemplate "match: path_match_policy",
    AnyCase "match: case_sensitive false",
    HeaderExact "header: string_match exact",
    HeaderPrefix "header: string_match prefix",
    HeaderSuffix "header: string_match suffix",
    HeaderContains "header: string_match contains",
    HeaderRegex "header: string_match safe_regex",
    HeaderAnyCase "header: string_match ignore_case",
    HeaderOldExact "header: exact_match",
    HeaderOldPrefix "header: prefix_match",
    HeaderOldSuffix "header: suffix_match",
    HeaderOldContains "header: contains_match",
    HeaderOldRegex "header: safe_regex_match",
    HeaderRange "header: range_match",
    HeaderPresent "header: present_match true",
    HeaderAbsent "header: present_match false",
    HeaderAny "header: nothing but its name",
    HeaderInverted "header: invert_match",
    HeaderMissingEmpty "header: treat_missing_header_as_empty",
    HeaderPseudo "header: a pseudo header",
    QueryText "query: string_match",
    QueryPresent "query: present_match true",
    QueryAbsent "query: present_match false",
    Cookie "cookie: string_match",
    CookieInverted "cookie: invert_match",
    Grpc "match: grpc",
    FractionNone "match: runtime_fraction 0",
    FractionAll "match: runtime_fraction 100%",
    ToCluster "route: cluster",
    ToClusterHeader "route: cluster_header",
    ToUnknownCluster "route: a cluster that is not there",
    NotFoundCode "route: cluster_not_found_response_code",
    Weighted "route: weighted_clusters",
    WeightedHost "weighted: host_rewrite_literal",
    WeightedHeader "weighted: cluster_header",
    WeightedEdits "weighted: header edits",
    RewritePrefix "route: prefix_rewrite",
    RewriteRegex "route: regex_rewrite",
    RewriteTemplate "route: path_rewrite_policy",
    RewriteFormat "route: path_rewrite",
    HostLiteral "route: host_rewrite_literal",
    HostFromHeader "route: host_rewrite_header",
    HostFromPath "route: host_rewrite_path_regex",
    HostFormat "route: host_rewrite",
    ForwardedHost "route: append_x_forwarded_host",
    Redirect "redirect",
    RedirectHost "redirect: host_redirect",
    RedirectPort "redirect: port_redirect",
    RedirectHttps "redirect: https_redirect",
    RedirectScheme "redirect: scheme_redirect",
    RedirectPath "redirect: path_redirect",
    RedirectPrefix "redirect: prefix_rewrite",
    RedirectRegex "redirect: regex_rewrite",
    RedirectFormat "redirect: path_rewrite",
    RedirectCode "redirect: response_code",
    RedirectStrip "redirect: strip_query",
    Direct "direct_response",
    RequestAdd "request_headers_to_add",
    RequestRemove "request_headers_to_remove",
    ResponseAdd "response_headers_to_add",
    ResponseRemove "response_headers_to_remove",
    AppendOrAdd "append_action: APPEND_IF_EXISTS_OR_ADD",
    AddIfAbsent "append_action: ADD_IF_ABSENT",
    OverwriteOrAdd "append_action: OVERWRITE_IF_EXISTS_OR_ADD",
    OverwriteIfExists "append_action: OVERWRITE_IF_EXISTS",
    KeepEmpty "keep_empty_value",
    FormatHeader "format: REQ",
    FormatPath "format: PATH",
    FormatClient "format: DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    AskHost "request: a host of the table",
    AskPort "request: a host with a port",
    AskCase "request: a host in capitals",
    AskDot "request: a host with a dot at the end",
    AskIp "request: an address as its host",
    AskEncoded "request: an encoded path",
    AskQuery "request: a query",
    AskCookie "request: cookies",
    AskRepeated "request: a repeated header",
    AskMethod "request: another method",
    ChainServerName "chain: server_names exact",
    ChainWildcard "chain: server_names wildcard",
    ChainProtocol "chain: transport_protocol",
    ChainAlpn "chain: application_protocols",
    ChainPort "chain: destination_port",
    ChainDestination "chain: prefix_ranges",
    ChainSource "chain: source_prefix_ranges",
    ChainDirectSource "chain: direct_source_prefix_ranges",
    ChainSourcePort "chain: source_ports",
    ChainSourceType "chain: source_type",
    ChainDefault "chain: default_filter_chain",
    ArriveTls "connection: TLS",
    ArriveRaw "connection: plain",
    ArriveAlpn "connection: ALPN",
    ArriveV6 "connection: IPv6",
    RefuseDomainTwice "refused: a domain twice",
    RefuseRegex "refused: a regular expression that is none",
    RefuseEditHost "refused: an edit of the host",
    RefuseEditPseudo "refused: an edit of a pseudo header",
    RefuseEditName "refused: a header name that is none",
    RefuseEditFormat "refused: a format that is not closed",
    RefuseNoDomain "refused: a virtual host without domains",
    RefuseNoName "refused: a virtual host without a name",
    RefuseNoAction "refused: a route without an action",
    RefuseNoMatch "refused: a route without a path",
    RefuseWeights "refused: weights that sum to zero",
    RefuseWeightName "refused: a weighted cluster without a name",
    RefuseTwoRewrites "refused: two rewrites of a path",
    RefuseTemplate "refused: a path template that is none",
    RefuseTemplateRewrite "refused: a rewrite with another template's name",
    RefuseStatus "refused: a status out of range",
    RefuseBody "refused: a body that is too long",
    RefuseWildcardDomain "refused: a star within a domain",
    RefuseChainTwice "refused: two chains that match the same",
    RefuseServerName "refused: a partial wildcard as a server name",
    RefuseCidr "refused: an address that is none",
}
