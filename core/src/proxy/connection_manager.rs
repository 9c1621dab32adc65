//! The part of an HTTP connection manager that decides.

use std::sync::Arc;

use super::{ReadError, RouteTable};
use crate::envoy::Fields;

/// The part of an HTTP connection manager that decides.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConnectionManager {
    /// `stat_prefix`
    pub stat_prefix: String,
    /// Where its routes come from.
    pub routes: RouteSource,
    /// Whether the peer's address is appended to `x-forwarded-for` as the client's.
    pub use_remote_address: bool,
    /// Whether `x-forwarded-for` is left as it is although the peer's address is the client's.
    pub skip_xff_append: bool,
    /// How many proxies in front are trusted to have appended to `x-forwarded-for`.
    pub xff_num_trusted_hops: u32,
    /// The HTTP filters before the router, by name: passed by in the model.
    pub filters: Vec<String>,
}

/// Where a connection manager's routes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSource {
    /// By RDS, under this name.
    Rds(String),
    /// Written in the connection manager itself.
    Inline(Arc<RouteTable>),
    /// Scoped or absent: not modelled.
    Other(String),
}

impl HttpConnectionManager {
    /// Reads the manager. Filters other than the router stay unread.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ReadError> {
        // HTTP/1.1 or HTTP/2 by what the client speaks: what is modelled is the request.
        fields.skip("codec_type");
        let mut filters = Vec::new();
        for filter in fields.messages("http_filters") {
            let name = filter.text("name");
            let router = filter
                .any("typed_config")
                .is_some_and(|it| it.message_name().ends_with(".Router"));
            if !router {
                filter.note();
                filters.push(name);
            }
        }
        let routes = match fields.which("route_specifier").as_deref() {
            Some("rds") => match fields.message("rds") {
                Some(rds) => {
                    rds.skip("config_source");
                    RouteSource::Rds(rds.text("route_config_name"))
                }
                None => RouteSource::Other("rds".to_owned()),
            },
            Some("route_config") => match fields.message("route_config") {
                Some(fields) => {
                    let table = RouteTable::read_fields(&fields)?;
                    fields.note_all(&table.not_simulated);
                    RouteSource::Inline(Arc::new(table))
                }
                None => RouteSource::Other("route_config".to_owned()),
            },
            other => RouteSource::Other(other.unwrap_or_default().to_owned()),
        };
        Ok(Self {
            stat_prefix: fields.text("stat_prefix"),
            routes,
            use_remote_address: fields.flag("use_remote_address"),
            skip_xff_append: fields.flag("skip_xff_append"),
            xff_num_trusted_hops: fields.number("xff_num_trusted_hops"),
            filters,
        })
    }
}
