//! The image on its own: agent, Envoy and a backend in one container, which is a node, asked from
//! outside. Run by `ci/image`.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use testcontainers::core::{ExecCommand, WaitFor};
use testcontainers::runners::SyncRunner as _;
use testcontainers::{Container, GenericImage, ImageExt as _};

const WITHIN: Duration = Duration::from_secs(60);
/// The Ingress's, in `manifests.yaml`.
const NODE_PORT: u16 = 30080;

/// A node: it has a kernel's network of its own, and may do with it what it likes.
fn node() -> Container<GenericImage> {
    let image = std::env::var("NODEWAY_IMAGE").expect("run it by ci/image");
    let (name, tag) = image.split_once(':').expect("an image has a tag");
    GenericImage::new(name, tag)
        .with_entrypoint("sh")
        .with_wait_for(WaitFor::Nothing)
        .with_privileged(true)
        .with_copy_to("/node.yaml", include_bytes!("manifests.yaml").to_vec())
        .with_copy_to("/node.sh", include_bytes!("node.sh").to_vec())
        .with_cmd(["-e", "/node.sh"])
        .start()
        .unwrap()
}

/// What a node's program says, and whether it succeeds.
fn run(node: &Container<GenericImage>, command: &[&str]) -> (bool, String) {
    let mut done = node.exec(ExecCommand::new(command.to_vec())).unwrap();
    let mut said = String::from_utf8(done.stdout_to_vec().unwrap()).unwrap();
    said += &String::from_utf8(done.stderr_to_vec().unwrap()).unwrap();
    (done.exit_code().unwrap() == Some(0), said)
}

fn get(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_request_to_a_node_port_from_outside_is_answered_through_the_nodes_envoy() {
    let node = node();
    let begun = Instant::now();
    loop {
        let (in_sync, said) = run(&node, &["nodeway", "status"]);
        if in_sync {
            break;
        }
        if begun.elapsed() > WITHIN {
            let logs = String::from_utf8(node.stderr_to_vec().unwrap());
            panic!("the node is not in sync: {said}\n{}", logs.unwrap());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    // Its own word: engines of other versions tell of their bridge elsewhere.
    let (_, address) = run(&node, &["hostname", "-i"]);
    let address: IpAddr = address.trim().parse().unwrap();
    let answer = get(SocketAddr::new(address, NODE_PORT)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nserver: envoy\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nweb\n"), "{answer}");
}

#[test]
fn the_image_says_under_which_licence_it_is() {
    let (found, said) = run(
        &node(),
        &["head", "-n", "2", "/usr/share/doc/nodeway/LICENSE.txt"],
    );
    assert!(found && said.contains("Apache License"), "{said}");
}
