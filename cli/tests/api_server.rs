//! What commands say of an API server that is not there, and that a signal ends them while they wait for it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;

use crate::process::command;

fn nodeway(arguments: &[&str], folder: &Path, server: SocketAddr) -> Command {
    let kubeconfig = folder.join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: a, clusters: [{{name: a, cluster: {{server: 'https://{server}'}}}}], \
         users: [{{name: a, user: {{}}}}], contexts: [{{name: a, context: {{cluster: a, user: a}}}}]}}"
    );
    fs::write(&kubeconfig, text).unwrap();
    let mut command = command(arguments);
    command.env("KUBECONFIG", kubeconfig).env_remove("RUST_LOG");
    command
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap()
}

#[rstest]
#[case::explain(&["explain", "kube", "--from", "outside", "--to", "http://a/"])]
#[case::check(&["check", "kube"])]
#[case::status(&["status", "kube"])]
#[case::operator(&["operator"])]
fn an_api_server_that_is_not_there_is_named(#[case] arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let server = nobody();
    let output = nodeway(arguments, folder.path(), server).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for fragment in [&server.to_string(), "refused"] {
        assert!(said.contains(fragment), "`{fragment}` is not in: {said}");
    }
    assert!(!said.contains("let this account"), "{said}");
}

#[rstest]
#[case::interrupt(Signal::SIGINT, 130)]
#[case::terminate(Signal::SIGTERM, 143)]
fn a_signal_ends_who_waits_for_an_api_server_that_says_nothing(
    #[case] signal: Signal,
    #[case] code: i32,
) {
    let folder = tempfile::tempdir().unwrap();
    // The kernel takes connections, and nobody ever reads from them.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut command = nodeway(&["operator"], folder.path(), silent.local_addr().unwrap());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    assert!(lines.any(|line| line.contains("asks the API server")));
    // Without a signal it waits for half a minute.
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    assert!(lines.any(|line| line.contains("before it had started")));
    assert_eq!(child.wait().unwrap().code(), Some(code));
}
