# What a node runs: a backend, Envoy with its supervisor, and the agent.
mkdir /manifests
sed "s/NODE/$(hostname -i)/" /node.yaml >/manifests/node.yaml
perl -MIO::Socket::INET -e '
  my $server = IO::Socket::INET->new(LocalPort => 9080, Listen => 64, ReuseAddr => 1) or die $!;
  while (my $client = $server->accept) {
    while (<$client>) { last if /^\r?\n$/ }
    print $client "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nweb\n";
    close $client;
  }' &
nodeway envoy --node node-1 &
exec nodeway agent --from /manifests --node node-1 --redirect iptables --metrics 127.0.0.1:9964
