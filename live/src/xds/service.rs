//! The gRPC service `envoy.service.discovery.v3.AggregatedDiscoveryService`.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::{Ready, ready};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::discovery::{Incremental, StateOfTheWorld, Talk};
use super::proxies::Proxies;
use super::stream::responses;

/// A request with the versions of all that a proxy has: some 100 bytes each.
const LARGEST_REQUEST: usize = 64 << 20;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    proxies: Arc<Proxies>,
    patience: Duration,
}

impl Discovery {
    pub(super) fn new(proxies: Arc<Proxies>, patience: Duration) -> Self {
        Self { proxies, patience }
    }

    async fn serve<T: Talk>(self, request: http::Request<Body>) -> http::Response<Body> {
        let codec = ProstCodec::<T::Response, T::Request>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST_REQUEST);
        let method = Method::<T> {
            discovery: self,
            talk: PhantomData,
        };
        grpc.streaming(method, request).await
    }
}

impl Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
        let discovery = self.clone();
        let path = request.uri().path().to_owned();
        Box::pin(async move {
            Ok(match path.strip_prefix(SERVICE) {
                Some("StreamAggregatedResources") => discovery.serve::<StateOfTheWorld>(request).await,
                Some("DeltaAggregatedResources") => discovery.serve::<Incremental>(request).await,
                _ => Status::unimplemented(format!(
                    "{path} is not served here; use ADS: `ads_config` and `config_source: {{ads: {{}}}}`"
                ))
                .into_http(),
            })
        })
    }
}

/// One of the service's two methods.
struct Method<T> {
    discovery: Discovery,
    talk: PhantomData<T>,
}

impl<T: Talk> StreamingService<T::Request> for Method<T> {
    type Response = T::Response;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<T::Response, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<T::Request>>) -> Self::Future {
        let Discovery { proxies, patience } = self.discovery.clone();
        let stream = responses::<T>(proxies, request.into_inner(), patience);
        ready(Ok(Response::new(Box::pin(stream))))
    }
}
