//! A proxy of the incremental protocol that takes all it is told, as Envoy asks for it, and counts.

use std::error::Error;
use std::path::Path;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use nodeway_core::envoy::ResourceKind;
use prost::Message;
use tokio::net::UnixStream;

/// Larger than any response: what flow control costs is not what is measured.
const WINDOW: u32 = 1 << 30;

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`, as far as it is said here.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, optional, tag = "1")]
    node: Option<Node>,
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, repeated, tag = "3")]
    subscribe: Vec<String>,
    #[prost(string, tag = "6")]
    nonce: String,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    id: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`, as far as it is read here.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

/// What one response was.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Bytes of the gRPC message.
    pub(super) bytes: usize,
    type_url: String,
    nonce: String,
}

impl Heard {
    pub(super) fn kind(&self) -> Option<ResourceKind> {
        ResourceKind::of(self.type_url.rsplit('/').next()?)
    }
}

/// A proxy with its stream.
pub(super) struct Client {
    up: SendStream<Bytes>,
    answer: Option<ResponseFuture>,
    down: Option<RecvStream>,
    buffer: BytesMut,
    /// Keeps the connection.
    _connection: SendRequest<Bytes>,
}

impl Client {
    /// Connects and says who it is, by asking for all clusters; then for all listeners.
    pub(super) async fn connect(socket: &Path, node: &str) -> Result<Self, Box<dyn Error>> {
        let stream = UnixStream::connect(socket).await?;
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOW);
        builder.initial_connection_window_size(WINDOW);
        let (client, connection) = builder.handshake::<_, Bytes>(stream).await?;
        tokio::spawn(async { drop(connection.await) });
        let mut client = client.ready().await?;
        let request = http::Request::post(
            "http://agent/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        );
        let request = request
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let (answer, up) = client.send_request(request.body(())?, false)?;
        let (answer, down, buffer) = (Some(answer), None, BytesMut::new());
        let mut own = Self {
            up,
            answer,
            down,
            buffer,
            _connection: client,
        };
        let node = Some(Node {
            id: node.to_owned(),
        });
        for (kind, node) in [
            (ResourceKind::Cluster, node),
            (ResourceKind::Listener, None),
        ] {
            own.say(Request {
                node,
                type_url: url(kind),
                ..Request::default()
            })?;
        }
        Ok(own)
    }

    /// Asks for resources by name.
    pub(super) fn ask(&mut self, kind: ResourceKind, names: Vec<String>) -> Result<(), h2::Error> {
        self.say(Request {
            type_url: url(kind),
            subscribe: names,
            ..Request::default()
        })
    }

    /// Takes a response.
    pub(super) fn acknowledge(&mut self, heard: &Heard) -> Result<(), h2::Error> {
        self.say(Request {
            type_url: heard.type_url.clone(),
            nonce: heard.nonce.clone(),
            ..Request::default()
        })
    }

    fn say(&mut self, request: Request) -> Result<(), h2::Error> {
        let message = request.encode_to_vec();
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        frame.put_slice(&message);
        self.up.send_data(frame.freeze(), false)
    }

    /// The next response.
    pub(super) async fn hear(&mut self) -> Result<Heard, Box<dyn Error>> {
        // Nothing is lost when this is given up and called again.
        if let Some(answer) = &mut self.answer {
            self.down = Some(answer.await?.into_body());
            self.answer = None;
        }
        let down = self.down.as_mut().ok_or("the stream has not begun")?;
        loop {
            if let Some((mut header, rest)) = self.buffer.split_at_checked(5) {
                header.advance(1);
                let length = header.get_u32() as usize;
                if rest.len() >= length {
                    self.buffer.advance(5);
                    let response = Response::decode(self.buffer.split_to(length))?;
                    return Ok(Heard {
                        bytes: length,
                        type_url: response.type_url,
                        nonce: response.nonce,
                    });
                }
            }
            let data = down.data().await.ok_or("the server ended the stream")??;
            down.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

fn url(kind: ResourceKind) -> String {
    format!("type.googleapis.com/{}", kind.message_name())
}
